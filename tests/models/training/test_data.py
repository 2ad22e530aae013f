"""A user's own FEFF folder: what is read of it, and what is said of one that is not as documented."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xas_agent.agent.types.grid import Grid
from xas_agent.models.training.data import DataError, check_grid, grid_end, load_feff, load_sets
from xas_agent.models.training.train import folds

ROWS = {
    "id": ["a", "b", "c", "d"],
    "material": ["m1", "m1", "m2", "m3"],
    "split": ["train", "train", "val", "sim"],
    "OS": ["2", "3", "", "3"],
    "CN": ["6", "5", "4", ""],
    "OS_mean": ["2.5", "", "", "3.0"],
}
DESCRIPTORS = ("OS", "CN")
EDGE = 7709.0
ENERGY = EDGE + np.array([np.linspace(-8.0 + k, 80.0 - k, 60) for k in range(4)])
MU = 0.5 + np.arctan((ENERGY - EDGE) / 2) / np.pi


def write(folder: Path, columns: dict[str, Any] = ROWS, **arrays: Any) -> Path:
    kept = {"id": np.array(ROWS["id"]), "energy": ENERGY, "mu": MU, **arrays}
    np.savez(folder / "co.npz", **{k: v for k, v in kept.items() if v is not None})
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    (folder / "co.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_labels_go_with_their_spectra_whatever_their_order(tmp_path):
    order = [2, 0, 3, 1]
    data = load_feff(write(tmp_path, {k: [v[i] for i in order] for k, v in ROWS.items()}), "co", DESCRIPTORS)
    assert data.ids.tolist() == ["a", "b", "c", "d"]
    assert data.material.tolist() == ["m1", "m1", "m2", "m3"]
    np.testing.assert_array_equal(data.labels["OS"], [2, 3, np.nan, 3])
    np.testing.assert_array_equal(data.labels["CN"], [6, 5, 4, np.nan])
    np.testing.assert_array_equal(data.mu, MU)


def test_the_mean_oxidation_state_is_the_sites_own_only_in_a_table_without_it(tmp_path):
    data = load_feff(write(tmp_path), "co", DESCRIPTORS)
    np.testing.assert_array_equal(data.labels["OS"], [2, 3, np.nan, 3])
    np.testing.assert_array_equal(data.labels["OS_mean"], [2.5, np.nan, np.nan, 3])
    nowhere = load_feff(write(tmp_path, ROWS | {"OS_mean": [""] * 4}), "co", DESCRIPTORS)
    assert np.isnan(nowhere.labels["OS_mean"]).all()
    without = {k: v for k, v in ROWS.items() if k != "OS_mean"}
    data = load_feff(write(tmp_path, without), "co", DESCRIPTORS)
    np.testing.assert_array_equal(data.labels["OS_mean"], data.labels["OS"])


def test_near_copies_of_a_layered_compound_are_one_material(tmp_path):
    kinds = {"kind": ["layered", "rattled", "layered", "mp"], "formula": ["LiCoO2", "LiCoO2", "CoO2", "LiCoO2"]}
    data = load_feff(write(tmp_path, {**ROWS, "material": ["o3", "o3_r0", "o1", "mp-1"], **kinds}), "co", DESCRIPTORS)
    assert data.material.tolist() == ["LiCoO2", "LiCoO2", "CoO2", "mp-1"]


def joined(folder: Path, **sets: dict[str, list[str]]):
    """Join sets of other materials, formulas and splits than the rows of this module, four each."""
    for name, columns in sets.items():
        (folder / name).mkdir()
        write(folder / name, {**ROWS, **columns})
        for suffix in ("npz", "csv"):
            (folder / name / f"co.{suffix}").rename(folder / f"{name}.{suffix}")
    return load_sets(folder, tuple(sets), DESCRIPTORS)


def test_a_material_is_recognised_by_its_id_and_formula_in_all_sets(tmp_path):
    both = joined(
        tmp_path,
        omni={
            "material": ["mp-19", "mp-19", "mp-7", "mvc-3"],
            "formula": ["CoO", "CoO", "Co3O4", "LiCoO2"],
            "split": ["train", "train", "val", "train"],
        },
        ours={
            # The same compound, a prototype with Co in the place of Cu, another id of nearly the same name.
            "material": ["mp-7_Co", "mp-19_Co", "mp-190", "mvc-3_Co"],
            "formula": ["Co3O4", "Ba2CoO4", "CoO", "LiCoO2"],
            "split": ["train", "val", "train", "val"],
        },
    )
    omni, ours = both.material[:4].tolist(), both.material[4:].tolist()
    assert ours[0] == omni[2]
    assert ours[3] == omni[3]
    assert len({*omni, *ours}) == 5
    assert both.split.tolist() == ["train", "train", "val", "val", "val", "val", "train", "val"]


def test_a_row_without_id_may_be_any_compound_of_its_formula(tmp_path):
    both = joined(
        tmp_path,
        omni={
            "material": ["mp-1", "mp-2", "mp-3", "mp-4"],
            "formula": ["Co3O4", "Co3O4", "LiCoPO4", "CoO"],
            "split": ["train", "val", "train", "train"],
        },
        ours={
            "material": ["spinel", "olivine", "wurtzite", "rutile"],
            "formula": ["Co3O4", "LiCoPO4", "ZnCoO", ""],
            "split": ["train", "val", "train", "train"],
        },
    )
    assert both.material.tolist() == [
        "Co3O4",
        "Co3O4",
        "LiCoPO4",
        "mp-4 CoO",
        "Co3O4",
        "LiCoPO4",
        "wurtzite",
        "rutile",
    ]
    assert both.split.tolist() == ["train", "val", "train", "train", "train", "val", "train", "train"]
    apart = folds(both.material, 3, seed=0)
    assert all(not set(both.material[a]) & set(both.material[b]) for a in apart for b in apart if a is not b)


def test_rows_are_chosen_with_all_that_belongs_to_them(tmp_path):
    data = load_feff(write(tmp_path), "co", DESCRIPTORS)
    some = data.rows(data.split == "train")
    assert len(some) == 2
    assert some.ids.tolist() == ["a", "b"]
    np.testing.assert_array_equal(some.energy, ENERGY[:2])
    assert {k: len(v) for k, v in some.labels.items()} == {"OS": 2, "CN": 2, "OS_mean": 2}


def test_bins_hold_the_spectrum_and_its_tail(tmp_path):
    data = load_feff(write(tmp_path), "co", DESCRIPTORS)
    bounds = np.arange(-20.5, 70.5)
    binned = data.on_bins(bounds, EDGE)
    inside = (bounds[:-1] + 0.5) > -4
    centre = bounds[:-1][inside] + 0.5
    np.testing.assert_allclose(binned[:, inside], 0.5 + np.arctan(np.tile(centre, (4, 1)) / 2) / np.pi, atol=0.02)
    tail = binned[:, : np.flatnonzero(inside)[0]]
    assert (np.diff(tail, axis=1) > 0).all()
    assert (tail > 0).all()


def test_no_grid_may_reach_beyond_the_shortest_row(tmp_path):
    data = load_feff(write(tmp_path), "co", DESCRIPTORS)
    assert grid_end(data, EDGE) == pytest.approx(77.0)
    check_grid(Grid(-8, 77, 1, (-8, -5), (40, 77)), data, EDGE)
    with pytest.raises(DataError, match=r"shortest row ends 77\.0 eV above the edge, the grid at 78 eV"):
        check_grid(Grid(-8, 78, 1, (-8, -5), (40, 77)), data, EDGE)


@pytest.mark.parametrize(
    ("columns", "arrays", "message"),
    [
        ({}, {"mu": None}, r"co\.npz: no array mu; found id, energy"),
        ({}, {"mu": MU[:3]}, r"co\.npz: id \(4,\), energy \(4, 60\), mu \(3, 60\); expected \(N,\)"),
        ({}, {"id": np.array(["a", "b"])}, r"co\.npz: id \(2,\)"),
        ({}, {"energy": ENERGY[0], "mu": MU[0]}, r"energy \(60,\), mu \(60,\); expected"),
        ({}, {"mu": np.where(MU > 0.9, np.nan, MU)}, r"co\.npz: row a is not finite, or its energies do not rise"),
        ({}, {"energy": ENERGY[:, ::-1]}, r"co\.npz: row a is not finite, or its energies do not rise"),
        ({}, {"id": np.array(["a", "b", "c", "x"])}, r"co\.csv: no row for 1 ids of co\.npz, the first x"),
        ({"CN": None}, {}, r"co\.csv: no column CN; found id, material, split, OS, OS_mean"),
        ({"split": None, "material": None}, {}, r"co\.csv: no column material, split"),
        ({"id": None}, {}, r"co\.csv: no column id"),
        ({"CN": ["6", "six", "", "4"]}, {}, r"co\.csv: column CN: .*'six'; expected numbers or empty cells"),
    ],
)  # fmt: skip
def test_data_that_are_not_as_documented_are_one_message(tmp_path, columns, arrays, message):
    changed = {k: v for k, v in {**ROWS, **columns}.items() if v is not None}
    with pytest.raises(DataError, match=message):
        load_feff(write(tmp_path, changed, **arrays), "co", DESCRIPTORS)


@pytest.mark.parametrize("missing", ["co.npz", "co.csv"])
def test_a_missing_file_is_named(tmp_path, missing):
    (write(tmp_path) / missing).unlink()
    with pytest.raises(DataError, match=rf"{missing}: not found; training data are co\.npz and co\.csv"):
        load_feff(tmp_path, "co", DESCRIPTORS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("co.npz", b"no npz"),
        ("co.npz", b""),
        ("co.csv", b""),
        ("co.csv", b"\xff\xfe"),
    ],
)
def test_a_file_of_another_kind_is_one_message(tmp_path, name, content):
    (write(tmp_path) / name).write_bytes(content)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        load_feff(tmp_path, "co", DESCRIPTORS)
