"""Sections of the report on variants of the SPT: Experts for one descriptor, and ablations."""

import numpy as np
import pandas as pd

from ..competitors import SPT_NAME
from ..contract import Predictions
from ..report import FigureOfMerit, Section, differences, tables
from .benchmark import Benchmark


def _difference(b: Benchmark, predictions: Predictions, d: str) -> FigureOfMerit:
    """Return the score of a single-network variant minus that of the full network with the same seed."""
    full = b.judged["material"][SPT_NAME].singles[0].best(b.classes)
    variant = predictions.best(b.classes)
    return tables.paired_bootstrap(b.truth("material"), variant, full, b.classes, b.material("material"), d)


def experts(b: Benchmark) -> Section:
    """Compare one SPT per descriptor with one for all descriptors (paper, section 5.3)."""
    joint = b.judged["material"][SPT_NAME]
    one = joint.seconds / b.shipped_members
    rows: dict[str, dict[str, float]] = {}
    for d, outcome in b.experts.items():
        predictions = outcome.predictions["clean"]
        gap = _difference(b, predictions, d)
        rows[d] = {
            "Expert": b.score(predictions, d),
            "Joint, same seed": b.score(joint.singles[0], d),
            "Joint, mean of seeds": float(np.mean([b.score(p, d) for p in joint.singles])),
            "Expert ahead by": gap.value,
            "low": gap.lo,
            "high": gap.hi,
            "training / s": outcome.seconds,
        }
    total = sum(r["training / s"] for r in rows.values())
    worse = [d for d, r in rows.items() if r["Expert"] - r["Joint, mean of seeds"] > 0.01]
    ahead = {"Expert": {d: _difference(b, o.predictions["clean"], d) for d, o in b.experts.items()}}
    return Section(
        "Expert against Joint",
        "One SPT per descriptor is compared with one for all descriptors, single networks on the same rows. "
        f"Training the {len(rows)} Experts took {total:.0f} s, a Joint SPT {one:.0f} s ({one / total:.0%}); serving "
        f"the Experts takes {len(rows)} forward passes instead of one. The Joint SPT, as a mean over its seeds, is "
        f"more than 0.01 below its Expert on {', '.join(worse) or 'no descriptor'}.",
        {"experts": pd.DataFrame.from_dict(rows, orient="index").rename_axis("descriptor")},
        {"experts": differences(ahead, "Expert − Joint")},
        {"experts": "Expert − Joint on the same seed, with 95 % intervals over materials."},
    )


def ablations(b: Benchmark) -> Section:
    """Compare the SPT with variants that differ in one setting."""
    differences_to_full = {
        n: {d: _difference(b, o.predictions["clean"], d) for d in b.descriptors} for n, o in b.ablations.items()
    }
    mean = {n: float(np.mean([m.value for m in of.values()])) for n, of in differences_to_full.items()}
    ordered = sorted(differences_to_full, key=lambda n: mean[n])
    rows = {
        n: {
            **{d: m.value for d, m in differences_to_full[n].items()},
            "mean": mean[n],
            "training / s": b.ablations[n].seconds,
        }
        for n in ordered
    }
    seeds = [np.mean([b.score(p, d) for d in b.descriptors]) for p in b.judged["material"][SPT_NAME].singles]
    spread = f"{np.ptp(seeds):.3f}" if len(seeds) > 1 else "an unknown amount"
    return Section(
        "Ablations",
        "Single networks with one changed setting are compared with the full network of the same seed. Mean "
        f"difference over the judged descriptors: {'; '.join(f'{n} {mean[n]:+.3f}' for n in ordered)}. The mean "
        f"score differs by {spread} between seeds of the full network; smaller differences are noise.",
        {"ablations": pd.DataFrame.from_dict(rows, orient="index").rename_axis("variant")},
        {"ablations": differences({n: differences_to_full[n] for n in ordered})},
        {"ablations": "Headline score minus that of the full network."},
    )
