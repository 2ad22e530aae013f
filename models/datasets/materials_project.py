"""K-edge XANES of the Materials Project, from XAS documents of ``mp-api`` in JSON.

    from mp_api.client import MPRester
    with MPRester() as mpr:
        documents = mpr.materials.xas.search(absorbing_element="Co", edge="K", spectrum_type="XANES")
    json.dump([d.model_dump(mode="json") for d in documents], open("co_xas.json", "w"))

Schema: ``emmet.core.xas.XASDoc``. Neither package is needed to read them. Needs the ``[train]`` extra.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure

from ...agent.types import InputError
from ..progress import Progress
from .batch import DIED, each
from .feff import checked
from .feff_runs import FeffSpectrum
from .structure_files import Site, read_json, row_id
from .structures import DESCRIPTORS, bare, distinct_sites


@dataclass(frozen=True)
class MPDocument:
    """A spectrum, and the sites that it averages."""

    spectrum: FeffSpectrum
    sites: tuple[Site, ...]


def read_documents(
    paths: Sequence[Path], absorber: str, jobs: int, progress: Progress
) -> tuple[list[MPDocument], Counter[str]]:
    """Read the K-edge XANES of the absorber, one per material.

    Returns
    -------
    The documents in the order of their ids, and the numbers of other documents by kind.

    Raises
    ------
    InputError
        A file is not JSON, or contains no such document.
    """
    raw: list[Any] = []
    for path in paths:
        try:
            raw += read_json(path)
        except (OSError, EOFError, ValueError) as e:
            raise InputError(
                f"{path}: not JSON ({e}); expected a list of XAS documents of the Materials Project"
            ) from None
    others: Counter[str] = Counter()
    found: dict[str, MPDocument] = {}
    for _, document in each("documents", partial(_document, absorber=absorber), raw, jobs, progress, DIED):
        if isinstance(document, str):
            others[document] += 1
        elif document.spectrum.site.id in found:
            others["a second spectrum of a material"] += 1
        else:
            found[document.spectrum.site.id] = document
    if not found:
        raise InputError(
            f"{', '.join(map(str, paths))}: no {absorber} K XANES among {len(raw)} documents; found "
            f"{describe_counts(others)}"
        )
    return [found[i] for i in sorted(found)], others


def describe_counts(others: Counter[str]) -> str:
    """Return numbers and kinds as a text: ``3 O K XANES, 1 Co L3 XANES``."""
    return ", ".join(f"{n} {kind}" for kind, n in others.most_common()) or "none"


def common_labels(labels: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the descriptors on which all sites of a mean spectrum agree, and NaN for the others."""
    return {
        d: labels[0][d] if all(math.isclose(one[d], labels[0][d], abs_tol=1e-4) for one in labels) else math.nan
        for d in DESCRIPTORS
    }


def _document(raw: Any, absorber: str) -> MPDocument | str:
    """Return the document, or its kind if it is not wanted."""
    try:
        about, spectrum = raw, raw["spectrum"]
        kind = f"{_symbol(about['absorbing_element'])} {about['edge']} {about['spectrum_type']}"
    except (TypeError, KeyError):
        return "not an XAS document"
    if kind != f"{absorber} K XANES":
        return kind
    material = about.get("material_id") or about.get("task_id")
    try:
        structure = bare(Structure.from_dict(spectrum.get("structure") or about["structure"]))
        energy, mu = checked(np.array(spectrum["x"], dtype=float), np.array(spectrum["y"], dtype=float))
        one = spectrum.get("absorbing_index")
        # Without an index the spectrum is the mean over the absorber's sites, weighted by multiplicity.
        sites = distinct_sites(structure, absorber) if one is None else [int(one)]
        built = [Site(row_id(str(material), absorber, i), str(material), structure, i) for i in sites]
        if not material or built[0].element != absorber:
            return "without a material, or with an index of another element"
        return MPDocument(FeffSpectrum(built[0], energy, mu), tuple(built))
    except Exception as e:  # pymatgen raises many types of exceptions for unusual structures
        return f"that cannot be read ({e})"


def _symbol(element: Any) -> str:
    """Return the symbol of an element, given as a string or an object of pymatgen's JSON."""
    return element["element"] if isinstance(element, dict) else str(element)
