"""Rattled and quenched structures, and their queue of FEFF jobs."""

import builtins
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from xas_agent.agent.types.errors import InputError
from xas_agent.app.jobs.disorder import make_disordered
from xas_agent.models.datasets.dataset import find_sites
from xas_agent.models.datasets.disorder import (
    AMORPHOUS,
    Disordered,
    QuenchSettings,
    RattleSettings,
    jobs_of,
    rattled,
    rattles,
    supercell,
)

RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)
OPTIONS: dict[str, Any] = {
    "amplitudes_a": (0.05, 0.2),
    "count": 3,
    "quenches": 0,
    "quench_sites": 2,
    "config": None,
    "val_fraction": 0.4,
    "seed": 0,
    "jobs": 1,
}


def apart(structure: Structure) -> float:
    distances = structure.distance_matrix.copy()
    np.fill_diagonal(distances, np.inf)
    return float(distances.min())


def test_a_supercell_has_no_short_edge():
    assert min(supercell(RUTILE, 8.5).lattice.abc) >= 8.5
    assert len(supercell(RUTILE, 8.5)) == 72
    assert supercell(RUTILE, 2.0) == RUTILE


def test_displacements_have_the_amplitude_and_leave_atoms_apart():
    large = supercell(RUTILE, 8.5)
    made = rattled(large, 0.1, np.random.default_rng(0))
    moved = made.frac_coords - large.frac_coords
    moved = (moved - np.round(moved)) @ large.lattice.matrix
    assert moved.std() == pytest.approx(0.1, rel=0.1)
    wild = rattled(large, 0.2, np.random.default_rng(0))
    assert apart(wild) > 0.7 * apart(large) - 1e-6


def test_displacements_that_leave_atoms_too_close_are_refused(monkeypatch):
    monkeypatch.setattr("xas_agent.models.datasets.disorder._ROUNDS", 1)
    with pytest.raises(ValueError, match=r"displacements of 0\.5 Å leave atoms nearer than 1\.36 Å"):
        rattled(supercell(RUTILE, 8.5), 0.5, np.random.default_rng(0))


def test_a_structure_depends_on_its_name_and_the_seed_only():
    one = {d.name: d.structure for d in rattles({"r": RUTILE}, RattleSettings(amplitudes_a=(0.1,), count=1), 3)}
    more = {d.name: d.structure for d in rattles({"r": RUTILE}, RattleSettings(amplitudes_a=(0.2, 0.1), count=2), 3)}
    assert one["r-rattled-0.1-00"] == more["r-rattled-0.1-00"]
    other = next(rattles({"r": RUTILE}, RattleSettings(amplitudes_a=(0.1,), count=1), 4))
    assert other.structure != one["r-rattled-0.1-00"]


def test_the_kinds_are_evenly_spread_and_a_structure_is_on_one_side():
    made = [Disordered(f"TiO2-{AMORPHOUS}-{k:02d}", AMORPHOUS, RUTILE) for k in range(3)]
    made += [Disordered(f"r-rattled-0.1-{k:02d}", "rattled-0.1", RUTILE) for k in range(4)]
    queue = jobs_of(made, "Ti", {AMORPHOUS: 2}, 0.3, 0)
    assert "".join(j["kind"][0] for j in queue) == "araraarara"
    assert len({j["id"] for j in queue}) == 10
    # One site of each amorphous structure before the second of any.
    amorphous = [j["id"].rpartition("_")[0] for j in queue if j["kind"] == AMORPHOUS]
    assert len(set(amorphous[:3])) == 3
    sides = {(j["id"].rpartition("_")[0], j["split"]) for j in queue}
    assert len(sides) == 7
    assert {side for _, side in sides} == {"train", "val"}


@pytest.mark.parametrize("name", ["jobs.jsonl", "deep/jobs.jsonl.gz"])
def test_the_queue_is_what_feff_reads(tmp_path, name):
    (tmp_path / "TiO2.json").write_text(json.dumps(RUTILE.as_dict()))
    out = tmp_path / name
    said = make_disordered(tmp_path / "TiO2.json", "Ti", out, **OPTIONS)
    assert said == f"{out}: 6 sites of 6 structures, 2 for validation"
    sites, failed = find_sites(out, None, 1, lambda *_: None)
    assert not failed
    assert {s.kind for s in sites} == {"rattled-0.05", "rattled-0.2"}
    assert {s.element for s in sites} == {"Ti"}
    assert len({s.material for s in sites}) == 6
    assert {s.split for s in sites} == {"train", "val"}
    again = tmp_path / "again.jsonl"
    make_disordered(tmp_path / "TiO2.json", "Ti", again, **OPTIONS)
    text = gzip.decompress(out.read_bytes()).decode() if out.suffix == ".gz" else out.read_text()
    assert again.read_text() == text


@pytest.mark.parametrize(
    ("absorber", "out", "changes", "message"),
    [
        ("Ti", "jobs.jsonl", {"amplitudes_a": ()}, "nothing to make; give --rattle, --quench or both"),
        ("Ti", "jobs.txt", {}, r"expected a name that ends in \.jsonl or \.jsonl\.gz"),
        ("Co", "jobs.jsonl", {}, "no structure with Co"),
        ("Xx", "jobs.jsonl", {}, "expected the symbol of an element"),
    ],
)
def test_what_cannot_be_made_is_one_message(tmp_path, absorber, out, changes, message):
    (tmp_path / "TiO2.json").write_text(json.dumps(RUTILE.as_dict()))
    with pytest.raises(InputError, match=message):
        make_disordered(tmp_path / "TiO2.json", absorber, tmp_path / out, **OPTIONS | changes)


def test_the_extra_for_melts_is_named(tmp_path, monkeypatch):
    (tmp_path / "TiO2.json").write_text(json.dumps(RUTILE.as_dict()))
    found = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] in ("ase", "chgnet"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'xas-agent\[quench\]'"):
        make_disordered(tmp_path / "TiO2.json", "Ti", tmp_path / "jobs.jsonl", **OPTIONS | {"quenches": 1})


def test_a_melt_begins_with_atoms_apart_and_ends_solid():
    pytest.importorskip("chgnet", reason="the extra quench is not installed")
    from xas_agent.models.datasets.quench import quench, random_atoms

    atoms = random_atoms(RUTILE.composition, 46, 3.8, np.random.default_rng(0))
    assert atoms.get_chemical_formula() == "O32Ti16"
    assert atoms.get_all_distances(mic=True)[np.triu_indices(48, 1)].min() >= 1.6
    with pytest.raises(ValueError, match="leaves no room for 48 atoms"):
        random_atoms(RUTILE.composition, 48, 12.0, np.random.default_rng(0))
    short = QuenchSettings(atoms=12, density_g_cm3=3.8, melt_ps=0.02, cool_ps=0.02)
    made = quench(RUTILE, short, 0)
    assert made.reduced_formula == "TiO2"
    assert float(made.density) == pytest.approx(3.8, rel=1e-3)
    assert quench(RUTILE, short, 0).frac_coords == pytest.approx(made.frac_coords, abs=1e-4)


def test_a_file_of_structures_is_read_once(tmp_path: Path):
    (tmp_path / "tio2.jsonl").write_text(
        "".join(json.dumps({"id": name, "structure": RUTILE.as_dict()}) + "\n" for name in ("a", "b"))
    )
    said = make_disordered(tmp_path, "Ti", tmp_path / "jobs.jsonl", **OPTIONS | {"count": 1})
    assert "4 sites of 4 structures" in said
