"""Data sets that grow by shards: what is added, what is left out, and that splits and numbers are kept."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crystals import rock_salt

from xas_agent.agent.types import InputError
from xas_agent.app.jobs.shards import append_rows, merge_shards, tables_of
from xas_agent.models.datasets.dataset import COLUMNS
from xas_agent.models.datasets.shards import Row, read_rows, write_rows
from xas_agent.models.datasets.structure_files import element_of
from xas_agent.models.training.data import load_feff

XMU = Path(__file__).resolve().parents[2] / "data/xmu.dat"
ENERGY, MU = np.loadtxt(XMU)[:, [0, 3]].T
NIO = rock_salt("Ni", 4.177)


def row(name: str, split: str = "train", mu: Any = MU, energy: Any = ENERGY, **cells: str) -> Row:
    about = {"id": name, "material": name.rpartition("_")[0], "formula": "CoO", "kind": "mp", "split": split}
    return Row(np.array(energy), np.array(mu), dict.fromkeys(COLUMNS, "") | about | cells)


def write(path: Path, *rows: Row) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_rows(path, rows)
    return path


def splits(folder: Path, name: str) -> dict[str, str]:
    with (folder / f"{name}.csv").open(newline="") as f:
        return {r["id"]: r["split"] for r in csv.DictReader(f)}


def test_sets_grow_by_shards_that_are_merged_by_absorber(tmp_path):
    out = tmp_path / "feff"
    first = write(tmp_path / "first/mixed.npz", row("mp-1_Co000"), row("mp-2_Co003", "val"), row("mp-1_Ni004", "cal"))
    said = append_rows([first], out, least=1, jobs=1)
    assert said == f"{out}/shards/0001.npz: 3 rows"
    assert merge_shards(out) == f"{out}: 3 rows, 3 of them new"
    assert not list((out / "shards").glob("*.npz"))
    more = write(tmp_path / "more/co.npz", row("mp-1_Co000", mu=MU * 1.5), row("mp-3_Co001", "sim"))
    assert append_rows([more], out, least=1, jobs=1) == f"{out}/shards/0001.npz: 1 row, 1 there already"
    assert append_rows([more], out, least=1, jobs=1) == f"{out}: 0 new rows, no shard of fewer than 1"
    last = write(tmp_path / "last/o.npz", row("mp-3_Co001_O005", "train"))
    assert append_rows([last], out, least=1, jobs=1).startswith(f"{out}/shards/0002.npz: 1 row")
    assert merge_shards(out) == f"{out}: 5 rows, 2 of them new"
    assert splits(out, "co_k") == {"mp-1_Co000": "train", "mp-2_Co003": "val", "mp-3_Co001": "sim"}
    assert (splits(out, "ni_k"), splits(out, "o_k")) == ({"mp-1_Ni004": "cal"}, {"mp-3_Co001_O005": "train"})
    data = load_feff(out, "co_k", ("OS",))
    np.testing.assert_allclose(data.mu[0], MU, atol=1e-6, err_msg="the first row of a site is kept")
    assert merge_shards(out) == f"{out}: 5 rows, 0 of them new"


def test_disordered_rows_are_a_set_of_their_own(tmp_path):
    out = tmp_path / "feff"
    first = write(tmp_path / "a.npz", row("TiO2-amorphous-01_Ti004"), row("TiO2-amorphous-00_Ti002", "val"))
    said = append_rows([first], out, least=1, jobs=1, name="ti_k_disordered")
    assert said == f"{out}/ti_k_disordered.npz: 2 rows"
    more = write(tmp_path / "b.npz", row("TiO2-amorphous-00_Ti002"), row("r-rattled-0.1-00_Ti001"))
    said = append_rows([more], out, least=1, jobs=1, name="ti_k_disordered")
    assert said == f"{out}/ti_k_disordered.npz: 1 row, 1 there already"
    again = append_rows([more], out, least=1, jobs=1, name="ti_k_disordered")
    assert again == f"{out}: 0 new rows, nothing written of fewer than 1"
    # Nor do they come into the absorber's set, by mistake or by a merge.
    assert append_rows([more], out, least=1, jobs=1) == f"{out}: 0 new rows, no shard of fewer than 1"
    append_rows([write(tmp_path / "c.npz", row("mp-1_Ti000"))], out, least=1, jobs=1)
    assert merge_shards(out) == f"{out}: 1 row, 1 of them new"
    assert splits(out, "ti_k_disordered") == {
        "TiO2-amorphous-00_Ti002": "val",
        "TiO2-amorphous-01_Ti004": "train",
        "r-rattled-0.1-00_Ti001": "train",
    }
    assert "| ti_k_disordered | 3 | 3 |" in tables_of(out)


def test_sulphides_beside_a_published_set_are_counted_and_not_added_again(tmp_path):
    out = tmp_path / "feff"
    rows = write(tmp_path / "a.npz", row("Cu2S_Cu000", "cal"), row("CuFeS2_Cu000", "cal"))
    assert append_rows([rows], out, least=1, jobs=1, name="cu_k_sulphides") == f"{out}/cu_k_sulphides.npz: 2 rows"
    assert append_rows([rows], out, least=1, jobs=1) == f"{out}: 0 new rows, no shard of fewer than 1"
    append_rows([write(tmp_path / "b.npz", row("mp-1_Ti000"))], out, least=1, jobs=1)
    assert merge_shards(out) == f"{out}: 1 row, 1 of them new"
    assert "| cu_k_sulphides | 2 | 2 |" in tables_of(out)


def test_a_merge_that_was_killed_goes_on(tmp_path):
    """After the sets were written, before the shards were deleted."""
    shard = write(tmp_path / "first/mixed.npz", row("mp-1_Co000"), row("mp-1_Ni004"))
    append_rows([shard], tmp_path, least=1, jobs=1)
    kept = {p: p.read_bytes() for p in (tmp_path / "shards").iterdir()}
    merge_shards(tmp_path)
    for path, content in kept.items():
        path.write_bytes(content)
    assert merge_shards(tmp_path) == f"{tmp_path}: 2 rows, 0 of them new, 2 there already"


def test_numbers_are_kept_to_a_millionth_and_a_thousandth_of_an_electronvolt(tmp_path):
    shorter = row("mp-2_Ni000", energy=np.linspace(8332, 8430, 60) + 1 / 3, mu=np.linspace(0.01, 3.1, 60) / 3)
    found = read_rows(write(tmp_path / "x.npz", row("mp-1_Co000"), shorter))
    assert np.abs(found[0].energy - ENERGY).max() < 1e-3
    assert np.abs(found[0].mu - MU).max() < 1e-6
    assert len(found[1].energy) == len(ENERGY)
    at = np.searchsorted(found[1].energy, shorter.energy - 1e-3)
    assert np.abs(found[1].energy[at] - shorter.energy).max() < 1e-3
    assert np.abs(found[1].mu[at] - shorter.mu).max() < 1e-6


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (row("mp-1_Co000", mu=np.where(MU > 1.2, 3.3, MU)), "a spike above 3.2"),
        (row("mp-1_Co000", mu=np.where(MU > 1.2, np.nan, MU)), "not finite, or energies that do not rise"),
        (row("mp-1_Co000", energy=ENERGY[::-1]), "not finite, or energies that do not rise"),
        (row("mp-1_Co000", split=""), "split '', not one of train, val, sim, cal"),
        (row("mp-1_Co000", formula=""), "no formula"),
        (row("mp-1_Co000", formula="", material=""), "no material and no formula"),
    ],
)
def test_broken_rows_are_left_out_and_counted(tmp_path, broken, why):
    assert broken.defect == why
    sources = [write(tmp_path / "new/x.npz", broken, row("mp-2_Co000"))]
    said = append_rows(sources, tmp_path / "feff", least=1, jobs=1)
    assert said.endswith(f"0001.npz: 1 row, left out 1 with {why}")
    merge_shards(tmp_path / "feff")
    assert list(splits(tmp_path / "feff", "co_k")) == ["mp-2_Co000"]


def test_white_lines_of_light_elements_are_no_spikes():
    high = np.where(MU > 1.2, 15.0, MU)
    assert [element_of(i) for i in ("mp-1_O004", "mp-1_Co000_P008", "mp-1_Li000")] == ["O", "P", "Li"]
    assert not any(row(i, mu=high).defect for i in ("mp-1_O004", "mp-1_Co000_P008", "mp-1_Li000"))
    assert row("mp-1_Sc000", mu=high).defect


def test_the_sites_of_a_structure_are_one_material_on_one_side(tmp_path):
    """Jobs of O near each Mn of a structure, of which one judges."""
    near = [row("Mn3O4_Mn001_O010"), row("Mn3O4_Mn004_O012", "val"), row("MnO_Mn000_O004"), row("MnO_O005", "cal")]
    append_rows([write(tmp_path / "new/o.npz", *near)], tmp_path, least=1, jobs=1)
    assert merge_shards(tmp_path) == f"{tmp_path}: 4 rows, 4 of them new, 1 moved to val, where their material is"
    assert list(splits(tmp_path, "o_k").values()) == ["val", "val", "train", "cal"]
    assert [r.cells["material"] for r in read_rows(tmp_path / "o_k.npz")] == ["Mn3O4", "Mn3O4", "MnO", "MnO"]


def test_runs_become_rows_with_the_split_of_their_job(tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "feff"
    for name, split in (("NiO_Ni000", "val"), ("NiO2x_Ni000", "train"), ("NiO_Ni000_O004", "")):
        folder = runs / name
        folder.mkdir(parents=True)
        (folder / "xmu.dat").write_bytes(XMU.read_bytes())
        about = {"id": name, "material": name.rpartition("_")[0], "kind": "reference", "split": split}
        index = 4 if name.endswith("O004") else 0
        (folder / "site.json").write_text(json.dumps({**about, "site": index, "structure": NIO.as_dict()}))
    assert append_rows([runs], out, least=4, jobs=1) == f"{out}: 3 new rows, no shard of fewer than 4"
    said = append_rows([runs], out, least=2, jobs=1)
    assert said.endswith("0001.npz: 2 rows, left out 1 with split '', not one of train, val, sim, cal")
    merge_shards(out)
    with (out / "ni_k.csv").open(newline="") as f:
        found = {
            r["id"]: [r[c] for c in ("split", "formula", "kind", "OS", "OS_mean", "CN")] for r in csv.DictReader(f)
        }
    rest = ["NiO", "reference", "2", "2.0", "6"]
    assert found == {"NiO2x_Ni000": ["train", *rest], "NiO_Ni000": ["val", *rest]}


def test_the_tables_count_rows_materials_and_labels(tmp_path):
    rows = [
        row("mp-1_Co000", OS="2", kind="reference"),
        row("mp-1_Co001", OS="3"),
        row("mp-2_Co000", "val", OS="4", mu=2 * MU),
        row("mp-3_Co000", "cal"),
    ]
    write(tmp_path / "co_k.npz", *rows)
    overview, described = tables_of(tmp_path).split("\n\nco_k: ")
    highest, shortest = f"{2 * MU.max():.2f}", f"{ENERGY[-1] - ENERGY[0]:.1f}"
    energies = f"{ENERGY[0]:.1f}…{ENERGY[-1]:.1f}"
    assert overview.splitlines()[-1] == f"| co_k | 4 | 3 | 2 | 1 | 0 | 1 | {energies} | {shortest} | {highest} |"
    assert described.startswith("3 mp, 1 reference\n\n| descriptor | train | val | sim | cal | median | range |\n")
    assert "| OS | 2 | 1 | 0 | 0 | 3 | 2…4 |" in described
    assert "| CN | 0 | 0 | 0 | 0 | – | – |" in described
    with pytest.raises(InputError, match=r"no set; expected files such as co_k\.npz"):
        tables_of(tmp_path / "elsewhere")


def test_files_of_another_kind_are_named(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no npz")
    with pytest.raises(InputError, match=r"x\.npz: .*expected id, energy and mu, and a row per id in x\.csv"):
        append_rows([tmp_path / "x.npz"], tmp_path, least=1, jobs=1)
    path = write(tmp_path / "y.npz", row("mp-1_Co000"))
    path.with_suffix(".csv").write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(InputError, match=r"y\.npz: 'mp-1_Co000'; expected"):
        append_rows([path], tmp_path, least=1, jobs=1)


def test_a_set_of_any_name_takes_rows_of_its_absorber_once(tmp_path):
    out, rows = tmp_path / "feff", write(tmp_path / "a.npz", row("mp-1_Ti000"))
    assert append_rows([rows], out, least=1, jobs=1, name="ti_k_glass") == f"{out}/ti_k_glass.npz: 1 row"
    assert append_rows([rows], out, least=1, jobs=1, name="ti_k_glass").startswith(f"{out}: 0 new rows")
    other = write(tmp_path / "b.npz", row("mp-2_V000"))
    with pytest.raises(InputError, match="ti_k_glass: rows of V; expected Ti alone"):
        append_rows([other], out, least=1, jobs=1, name="ti_k_glass")
    for name in ("sub/ti_k_glass", "glass", "ti_k"):
        with pytest.raises(InputError, match="expected ABSORBER_k_NAME"):
            append_rows([rows], out, least=1, jobs=1, name=name)
