"""Descriptors of sites whose surroundings are known: rock salt, layered, tenorite, metal."""

import csv
import gzip
import json
import math

import numpy as np
import pytest
from crystals import face_centred, rock_salt
from measured import FEFF
from pymatgen.core import Composition, Lattice, Structure

from xas_agent.models.datasets.structures import (
    DESCRIPTORS,
    bare,
    describe,
    digest,
    distinct_sites,
    mean_oxidation,
    quiet,
)

NAN = math.nan


def crystal(group: str, lattice: Lattice, elements: list[str], places: list[list[float]]) -> Structure:
    with quiet():
        return Structure.from_spacegroup(group, lattice, elements, places)


NIO = rock_salt("Ni", 4.177)
LICOO2 = crystal("R-3m", Lattice.hexagonal(2.816, 14.05), ["Co", "Li", "O"], [[0, 0, 0], [0, 0, 0.5], [0, 0, 0.2605]])
CUO = crystal(
    "C2/c", Lattice.monoclinic(4.6837, 3.4226, 5.1288, 99.54), ["Cu", "O"], [[0.25, 0.25, 0], [0, 0.4184, 0.25]]
)
COBALT = face_centred(3.545, ("Co", [[0, 0, 0]]))
CO_O = math.sqrt(2.816**2 / 3 + ((1 / 3 - 0.2605) * 14.05) ** 2)
"""From a Co to the O above it, a third of the cell's edge aside and down by the layer's half height, Å."""

KNOWN = {
    "NiO": (NIO, "Ni", {"OS": 2, "OS_mean": 2, "CN": 6, "CN2": 18, "OCN": 6, "NNRS": 0, "MOOD": 4.177 / math.sqrt(2),
                        "PSGO": 48, "NNOSM": -2, "mean_bond": 4.177 / 2}),
    "LiCoO2": (LICOO2, "Co", {"OS": 3, "OS_mean": 3, "CN": 6, "CN2": 18, "OCN": 6, "NNRS": 0,
                              "MOOD": math.sqrt(4 * CO_O**2 - 2.816**2), "PSGO": 12, "NNOSM": -2, "mean_bond": CO_O}),
    "CuO": (CUO, "Cu", {"OS": 2, "OS_mean": 2, "CN": 4, "OCN": 4, "PSGO": 4, "NNOSM": -2}),
    "Co": (COBALT, "Co", {"OS": NAN, "OS_mean": 0, "CN": 12, "OCN": 0, "MOOD": NAN, "PSGO": 48, "NNOSM": NAN,
                          "mean_bond": 3.545 / math.sqrt(2)}),
    "O in NiO": (NIO, "O", {"OS": -2, "OS_mean": NAN, "CN": 6, "OCN": 0, "MOOD": NAN, "NNOSM": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_known_surroundings(name):
    structure, element, expected = KNOWN[name]
    (site,) = distinct_sites(structure, element)
    (found,) = describe(structure, [site])
    assert tuple(found) == DESCRIPTORS
    assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_tenorite_is_four_bonds_of_two_lengths():
    (found,) = describe(CUO, distinct_sites(CUO, "Cu"))
    assert found["mean_bond"] == pytest.approx(1.956, abs=0.005)
    assert 0.001 < found["NNRS"] < 0.02
    assert found["MOOD"] == pytest.approx(2.62, abs=0.02)


def test_a_half_charged_cathode_has_the_mean_of_its_formula():
    half = LICOO2.copy()
    half.make_supercell([2, 1, 1])
    half.remove_sites([i for i, s in enumerate(half) if s.specie.symbol == "Li"][::2])
    sites = distinct_sites(half, "Co")
    found = describe(half, sites)
    assert {f["OS_mean"] for f in found} == {3.5}
    assert {f["CN"] for f in found} == {6}
    assert all(f["CN2"] < 18 for f in found)


def test_labels_do_not_depend_on_what_decorates_the_structure():
    decorated = NIO.copy()
    decorated.add_oxidation_state_by_element({"Ni": 2, "O": -2})
    decorated.add_site_property("magmom", [1.0] * len(decorated))
    assert describe(decorated, [0]) == describe(NIO, [0])
    assert digest(bare(decorated)) == digest(NIO)


def test_another_structure_has_another_digest():
    moved = NIO.copy()
    moved.translate_sites([1], [0.01, 0, 0])
    other = NIO.copy()
    other.replace(0, "Co")
    assert len({digest(NIO), digest(moved), digest(other), digest(NIO.copy().scale_lattice(70.0))}) == 4


@pytest.mark.parametrize(
    ("formula", "absorber", "mean"),
    [
        ("Li5(CoO2)12", "Co", 43 / 12), ("Co3O4", "Co", 8 / 3), ("TiCoO3", "Co", 2), ("Co(OH)2", "Co", 2),
        ("CoMn2O4", "Co", NAN), ("Ti4Ni2O", "Ni", NAN), ("CoSO4", "Co", NAN), ("Ni", "Ni", 0), ("Li2O", "O", -2),
        ("NiO", "Co", NAN), ("Ti2O3", "Ti", 3),
    ],
)  # fmt: skip
def test_mean_oxidation_by_charge_balance(formula, absorber, mean):
    assert mean_oxidation(Composition(formula), absorber) == pytest.approx(mean, nan_ok=True)


def test_iron_counts_as_three_only_where_it_is():
    spinel = crystal("Fd-3m:2", Lattice.cubic(8.39), ["Ni", "Fe", "O"], [[1 / 8] * 3, [0.5] * 3, [0.2575] * 3])
    wustite = NIO.copy()
    wustite.replace(1, "Fe")
    wustite.scale_lattice(78.0)
    assert describe(spinel, distinct_sites(spinel, "Ni"))[0]["OS_mean"] == 2
    found = describe(wustite, [0])[0]
    assert math.isnan(found["OS_mean"])
    assert found["CN"] == 6


@pytest.mark.parametrize(
    "odd",
    [
        Structure(Lattice.cubic(30), ["Co"], [[0, 0, 0]]),
        Structure(Lattice.cubic(4), ["Co", "He"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        Structure(Lattice.from_parameters(3, 3, 60, 90, 90, 60), ["Co", "Co"], [[0, 0, 0], [0.5, 0.5, 0.01]]),
    ],
)
def test_an_odd_structure_leaves_labels_empty(odd):
    (found,) = describe(odd, [0])
    assert tuple(found) == DESCRIPTORS
    assert math.isnan(found["OS"])


def test_what_is_no_site_is_refused():
    shared = Structure(Lattice.cubic(4.2), [{"Ni": 0.5, "Co": 0.5}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(ValueError, match="partial occupancies"):
        describe(shared, [0])
    skewed = Structure(Lattice.from_parameters(3, 3, 90, 90, 90, 5), ["Co", "O"], [[0, 0, 0], [0, 0, 0.5]])
    with pytest.raises(ValueError, match=r"atoms 0\.26 Å apart"):
        describe(skewed, [0])
    with pytest.raises(ValueError, match="no site 8 among 8"):
        describe(NIO, [8])


def test_distinct_sites_are_the_first_of_each_kind():
    spinel = crystal("Fd-3m:2", Lattice.cubic(8.08), ["Co", "Co", "O"], [[1 / 8] * 3, [0.5] * 3, [0.2635] * 3])
    first, second = distinct_sites(spinel, "Co")
    assert (first, second) == (0, 8)
    assert [f["CN"] for f in describe(spinel, [first, second])] == [4, 6]
    assert distinct_sites(NIO, "Cu") == []


def test_some_rows_of_the_training_sets():
    wanted = ("Co3O4_Co008", "Li0.50CoO2_O3_s0_Co006", "LaNiO3_Ni001")
    rows = {}
    for name in ("co_k", "ni_k"):
        with (FEFF / f"{name}.csv").open(newline="") as f:
            rows |= {r["id"]: r for r in csv.DictReader(f) if r["id"] in wanted}
    with gzip.open(FEFF / "structures.jsonl.gz", "rt") as f:
        structures = {d["id"]: d["structure"] for d in map(json.loads, f) if d["id"] in wanted}
    assert set(structures) == set(wanted)
    for i, structure in structures.items():
        (found,) = describe(Structure.from_dict(structure), [int(rows[i]["site"])])
        expected = np.array([float(rows[i][d] or NAN) for d in DESCRIPTORS])
        np.testing.assert_allclose([found[d] for d in DESCRIPTORS], expected, atol=6e-5, err_msg=i)
