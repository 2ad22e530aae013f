"""Spectra of files put on a model's grid, as a user does it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

E = np.linspace(7560.0, 8300.0, 600)
MU = 0.3 - 2e-4 * (E - 7709) + 1 / (1 + np.exp(-(E - 7720.0) / 1.5)) + 0.3 * np.exp(-(((E - 7726.0) / 4) ** 2))


def write(path: Path, energy: np.ndarray, mu: np.ndarray) -> Path:
    path.write_text("# energy mu\n" + "".join(f"{e:.3f} {m:.6f}\n" for e, m in zip(energy, mu, strict=True)))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("spectra")
    short = E < 7760
    return (
        write(folder / "co scan.txt", E, MU),
        write(folder / "short.txt", E[short], MU[short]),
        write(folder / "ni.txt", E + 624.0, MU),
    )


def test_what_is_written_is_read_again_as_it_was(xa, files, tmp_path):
    done = xa("align", *files, "--out", tmp_path, "--strict", code=4)
    assert "co scan.txt:0: aligned" in done.stdout
    assert "short.txt:0: set aside: does not cover the grid" in done.stdout
    table = list(csv.DictReader((tmp_path / "alignment.csv").read_text().splitlines()))
    assert [r["model"] for r in table] == ["co-k", "co-k", "ni-k"]
    assert float(table[0]["edge_step"]) == pytest.approx(1.0, abs=0.1)
    assert float(table[0]["e0_ev"]) == pytest.approx(7720.0, abs=1.5)
    assert "grid" in table[1]["set_aside"]
    for name in ("co_scan.txt_0.png", "short.txt_0.png", "ni.txt_0.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    measured = json.loads(xa("infer", files[0], "--format", "json").stdout)[0]
    again = json.loads(xa("infer", tmp_path / "aligned-co-k.npz", "--theory", "--format", "json").stdout)[0]
    assert again["id"] == "co scan.txt:0"
    for name in ("OS", "CN", "mean_bond"):
        assert again[name]["mean"] == pytest.approx(measured[name]["mean"], abs=0.02)


@pytest.mark.parametrize("form", ["csv", "xdi"])
def test_columns_on_feffs_scale(xa, files, tmp_path, form):
    xa("align", files[0], "--out", tmp_path, "--format", form, "--no-pictures")
    assert not list(tmp_path.glob("*.png"))
    path = tmp_path / f"co_scan.txt_0.{form}"
    assert ("# Element.symbol: Co" in path.read_text()) == (form == "xdi")
    answer = json.loads(xa("infer", path, "--theory", "--model", "co-k", "--format", "json").stdout)[0]
    assert "OS" in answer


def test_spectra_of_one_name_get_files_of_their_own(xa, tmp_path):
    for day, shift in ((1, 0.0), (2, 0.4)):
        (tmp_path / f"day{day}").mkdir()
        write(tmp_path / f"day{day}" / "co.txt", E, MU + shift)
    first, second = (tmp_path / f"day{day}" / "co.txt" for day in (1, 2))
    out = tmp_path / "out"
    done = xa("align", first, second, second, "--model", "co-k", "--out", out, "--format", "csv")
    assert "6 files and alignment.csv" in done.stdout
    names = ["day1_co.txt_0", "day2_co.txt_0", "day2_co.txt_0-2"]
    assert sorted(path.stem for path in out.glob("*.png")) == names
    assert sorted(path.stem for path in out.glob("*_*.csv")) == names


def test_a_bad_file_does_not_cost_the_others(xa, files, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    write(folder / "good.txt", E, MU)
    (folder / "bad.txt").write_text("no spectrum\n")
    for args in (("infer", folder), ("align", folder / "*.txt", "--out", tmp_path / "aligned", "--no-pictures")):
        done = xa(*args, "--model", "co-k")
        assert "good.txt:0" in done.stdout
        assert "1 file refused:" in done.stderr
        assert "bad.txt: found 0 rows of numbers" in done.stderr
        xa(*args, "--model", "co-k", "--strict", code=4)
    done = xa("convert", folder, "--out", tmp_path / "run.jsonl", "--strict", code=4)
    assert "1 spectrum of 1 file" in done.stdout
    assert "bad.txt" in xa("infer", folder / "bad.txt", code=2).stderr


def test_models_that_tell_different_things_stand_in_one_table(xa, files, tmp_path):
    cu = write(tmp_path / "cu.txt", E + 1270.0, MU)
    said = xa("infer", cu, files[0]).stdout
    assert "NNOSM" in said
    assert "–" in said
