"""Files of spectra as a user converts, names and watches them."""

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from deadline import wait_until
from forked import command

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}
E = np.linspace(7650.0, 7850.0, 201)
MU = 0.3 + 1 / (1 + np.exp(-(E - 7712.0) / 1.5)) + 0.1 * np.exp(-(((E - 7725.0) / 4) ** 2))


@pytest.fixture
def table(tmp_path) -> Path:
    """Columns of which no name tells anything."""
    path = tmp_path / "table.txt"
    path.write_text("# a b c\n" + "".join(f"{m:.6f} {e:.3f} 1.0\n" for e, m in zip(E, MU, strict=True)))
    return path


def documents(path: Path) -> list[tuple[str, dict]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_convert_with_columns_named(xa, tmp_path, table):
    said = xa("convert", table, "--out", tmp_path / "o.jsonl", code=2).stderr
    assert "found 3 columns (a, b, c)" in said
    assert "--column energy=" in said
    out = tmp_path / "run.jsonl"
    done = xa(
        "convert", table, "--out", out, "--column", "energy=b", "--column", "mu=a", "--element", "Co", "--edge", "K"
    )
    assert done.stdout.strip() == f"{out}: 1 spectrum of 1 file in 1 run"
    (_, start), _, (_, event), _ = documents(out)
    assert (start["element"], start["edge"]) == ("Co", "K")
    np.testing.assert_allclose(event["data"]["mu"], MU, atol=1e-6)
    answers = json.loads(
        xa("infer", table, "--column", "energy=2", "--column", "mu=1", "--model", "co-k", "--format", "json").stdout
    )
    assert "OS" in answers[0]
    assert "expected ROLE=NAME" in xa("convert", table, "--out", out, "--column", "energy", code=2).stderr


def test_convert_says_what_was_guessed_and_what_is_flawed(xa, tmp_path):
    path = tmp_path / "flawed.txt"
    path.write_text("# E mu\n" + "".join(f"{e:.3f} {m}\n" for e, m in zip(E / 1000, [np.nan, *MU[1:]], strict=True)))
    done = xa("convert", path, "--out", tmp_path / "run.jsonl", "--strict", code=4)
    assert "read as keV" in done.stderr
    assert "will be set aside: flawed.txt:0: NaN in data" in done.stderr


def test_what_cannot_be_converted_or_written_is_one_line(xa, tmp_path, table):
    (tmp_path / "folder.jsonl").mkdir()
    for args, said in (
        ((tmp_path / "*.xdi", "--out", tmp_path / "a.jsonl"), "found no files, expected files of spectra"),
        ((table, table, "--watch", "--out", tmp_path / "a.jsonl"), "found 2 paths, expected one folder"),
        ((table, "--out", tmp_path / "folder.jsonl"), "folder.jsonl: Is a directory, expected a file to write"),
        ((table, "--out", table / "a.jsonl"), "expected a file to write"),
    ):
        assert said in xa("convert", *args, code=2).stderr


def test_an_earlier_recording_stays_if_nothing_can_be_converted(xa, tmp_path):
    (tmp_path / "empty.dat").touch()
    (tmp_path / "run.jsonl").write_text("the night before\n")
    said = xa("convert", tmp_path / "empty.dat", "--out", tmp_path / "run.jsonl", code=2).stderr
    assert "found 0 rows" in said
    assert "replaces" not in said
    assert (tmp_path / "run.jsonl").read_text() == "the night before\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["convert", "run"])
def test_files_that_come_are_served_until_ctrl_c(xa, tmp_path, how):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    written = out / "documents.jsonl" if how == "run" else tmp_path / "run.jsonl"
    args = ("run", "--folder", folder, "--model", "co-k", "--out", out)
    if how == "convert":
        args = ("convert", folder, "--watch", "--out", written)
    process = subprocess.Popen(
        command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        header = "# Element.symbol: Co\n# Element.edge: K\n# energy mu\n"
        for name in ("1.xdi", "2.xdi"):
            (folder / name).write_text(header + "".join(f"{e} {m}\n" for e, m in zip(E, MU, strict=True)))
        wait_until(lambda: written.exists() and sum(n == "event" for n, _ in documents(written)) >= 2)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert "Traceback" not in stderr
    assert process.returncode == 0
    assert documents(written)[-1][0] == "stop"
