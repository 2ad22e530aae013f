"""Files in the form that OmniXAS publishes, with structures in three forms, to rows and labels."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from crystals import rock_salt
from pymatgen.core import Lattice, Structure

from xas_agent.agent.types import InputError
from xas_agent.app.jobs.dataset import import_omnixas
from xas_agent.models.training.data import load_feff

NIO = rock_salt("Ni", 4.177)
LINIO2 = Structure.from_spacegroup(
    "R-3m", Lattice.hexagonal(2.878, 14.19), ["Li", "Ni", "O"], [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.2585]]
)
BACKGROUND = 0.953
ENERGY = 8332.181 + 0.25 * np.arange(141)


def spectrum(shift: float) -> np.ndarray:
    return 0.5 + np.arctan((ENERGY - 8346 - shift) / 2) / np.pi


def publish(folder: Path, **parts: dict[str, float]) -> Path:
    """Write ids and spectra of each part, the edges of which are moved by the given numbers of eV."""
    for name in ("material_id_and_site", "ml_data"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        (folder / f"material_id_and_site/Ni_FEFF_{part}.txt").write_text("\n".join(rows) + "\n")
        mu = [BACKGROUND * spectrum(shift) for shift in rows.values()]
        np.savetxt(folder / f"ml_data/Ni_FEFF_{part}_y.txt", mu)
    return folder


@pytest.fixture
def structures(tmp_path) -> Path:
    """A POSCAR in a folder of its name, a CIF, and a line of lattice, species and coordinates."""
    folder = tmp_path / "structures"
    (folder / "mp-19009").mkdir(parents=True)
    NIO.to(filename=str(folder / "mp-19009/POSCAR"))
    LINIO2.to(filename=str(folder / "mp-25411.cif"))
    line = {"material": "mvc-7", "lattice": NIO.lattice.matrix.tolist(), "abc": NIO.frac_coords.tolist()}
    line["species"] = [s.specie.symbol for s in NIO]
    (folder / "more.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def test_rows_get_their_structures_labels_energies_and_parts(tmp_path, structures):
    train = {"mp-19009_000": 0.0, "mp-404_002": 1.0, "mvc-7_003": 2.0}
    val = {"mp-25411_003": 3.0, "mp-19009_004": 4.0}
    published = publish(tmp_path / "omni", train=train, val=val, test={"mp-19009_001": 5.0})
    said = import_omnixas(published, "Ni", structures, "ni", tmp_path, parts=("train", "val"), jobs=1)
    assert said == f"{tmp_path}/ni.npz and .csv: 3 rows of 3 materials, 1 of them for validation, 2 failed"
    with (tmp_path / "ni.csv").open(newline="") as f:
        rows = {r["id"]: [r[c] for c in ("material", "split", "site", "OS", "CN", "OCN")] for r in csv.DictReader(f)}
    assert rows == {
        "mp-19009_000": ["mp-19009", "train", "0", "2", "6", "6"],
        "mvc-7_003": ["mvc-7", "train", "3", "2", "6", "6"],
        "mp-25411_003": ["mp-25411", "val", "3", "3", "6", "6"],
    }
    data = load_feff(tmp_path, "ni", ("OS", "CN"))
    np.testing.assert_allclose(data.energy, np.tile(ENERGY, (3, 1)), rtol=0, atol=1e-9)
    np.testing.assert_allclose(data.mu, [spectrum(shift) for shift in (0.0, 2.0, 3.0)], atol=1e-9)


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("material_id_and_site/Ni_FEFF_val.txt", None, r"val\.txt: not found; expected the folder tutorial_"),
        ("material_id_and_site/Ni_FEFF_val.txt", "mp-19009\n", "id 'mp-19009'; expected a form such as mp-64"),
        ("material_id_and_site/Ni_FEFF_val.txt", "a_1\nb_2\n", "1 rows of 141 numbers; expected 2 of 141"),
        ("ml_data/Ni_FEFF_val_y.txt", "0.1 0.2\n", "1 rows of 2 numbers; expected 1 of 141"),
        ("ml_data/Ni_FEFF_val_y.txt", "zero\n", r"Ni_FEFF_val_y\.txt: .*expected 141 numbers per row"),
    ],
)  # fmt: skip
def test_other_files_are_one_message(tmp_path, structures, path, content, message):
    published = publish(tmp_path / "omni", val={"mp-19009_000": 0.0})
    (published / path).unlink()
    if content is not None:
        (published / path).write_text(content)
    with pytest.raises(InputError, match=message):
        import_omnixas(published, "Ni", structures, "ni", tmp_path, parts=("val",), jobs=1)


def test_what_omnixas_does_not_have_is_one_message(tmp_path, structures):
    published = publish(tmp_path / "omni", val={"mp-1_000": 0.0})
    for absorber, part, message in (
        ("Zn", "val", "expected one of OmniXAS's, Ti"),
        ("Ni", "all", "no part all; Omni"),
    ):
        with pytest.raises(InputError, match=message):
            import_omnixas(published, absorber, structures, "x", tmp_path, parts=(part,), jobs=1)
    with pytest.raises(InputError, match="no structure of 1 materials; expected files named by their ids"):
        import_omnixas(published, "Ni", structures, "x", tmp_path, parts=("val",), jobs=1)
