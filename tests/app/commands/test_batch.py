"""Many files at the command line: wrong options, bad files, names that collide, narrow terminals and Ctrl-C."""

import csv
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_lines import parsed
from rich.cells import cell_len

from xas_agent.app.config import load_config
from xas_agent.app.jobs.align import align_files, write_aligned
from xas_agent.models import card as cards

EDGES = {"Co": 7709.0, "Ni": 8333.0, "Zn": 9659.0}
NUMBER = re.compile(r"-?\d+\.\d\d \(-?\d+\.\d\d…-?\d+\.\d\d\)")


def write(path: Path, element: str = "Co", header: str = "", sweeps: int = 1) -> Path:
    x = np.linspace(-150.0, 500.0, 400)
    mu = 0.3 + 1 / (1 + np.exp(-(x - 10) / 1.5)) + 0.3 * np.exp(-(((x - 16) / 4) ** 2))
    rows = np.tile(np.c_[x + EDGES[element], mu], (sweeps, 1))
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{header}# energy mu\n" + "".join(f"{e:.3f} {m:.6f}\n" for e, m in rows))
    return path


def test_a_model_that_cannot_be_loaded(xa, tmp_path):
    shutil.copytree(cards.find("co-k"), tmp_path / "mine")
    (tmp_path / "mine" / "model.ts").write_bytes(b"no network")
    card = tmp_path / "mine" / "card.yaml"
    digest = sha256(b"no network").hexdigest()
    card.write_text(re.sub(r"(?m)^sha256: .*$", f"sha256: {digest}", card.read_text()))
    said = xa("infer", write(tmp_path / "a.dat"), "--model", tmp_path / "mine", code=2).stderr
    assert "expected a TorchScript network: restore it, or train the model again" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("infer", "FILE", "--element", "Zn"), "no model for Zn: co-k is for Co K"),
        (("infer", "FILE", "--element", "Xx"), "Xx is not an element"),
        (("infer", "FILE", "--edge", "Q"), "Q is not an edge"),
        (("infer", "FILE", "--model", "co-k", "--element", "Ni"), "no model for Ni: co-k is for Co K"),
        (("align", "FILE", "--element", "Zn", "--out", "OUT"), "no model for Zn"),
        (("convert", "FILE", "--element", "Xx", "--out", "OUT/run.jsonl"), "Xx is not an element"),
        (("run", "--element", "Xx", "--out", "OUT"), "Xx is not an element"),
        (("run", "--element", "Zn", "--folder", "FOLDER", "--out", "OUT"), "no model for Zn"),
        (("run", "--source", "zmq://127.0.0.1:1", "--preset", "bm", "--out", "OUT"), "the closest is bmm; the pre"),
        (("replay", "FILE", "--element", "Xx", "--out", "OUT"), "Xx is not an element"),
        (("infer", "FILE", "--model", "co"), "no model 'co'"),
    ],
)  # fmt: skip
def test_a_wrong_choice_fails_before_anything_is_made(xa, tmp_path, args, said):
    file, out = write(tmp_path / "in" / "co.txt"), tmp_path / "out"
    places = {"FILE": file, "FOLDER": file.parent, "OUT": out, "OUT/run.jsonl": out / "run.jsonl"}
    assert said in xa(*(places.get(arg, arg) for arg in args), code=2).stderr
    assert not out.exists()


@pytest.mark.parametrize("header", ["", "# Element.symbol: Ni\n# Element.edge: K\n"])
def test_a_spectrum_of_another_element_than_the_models(xa, tmp_path, header):
    nickel = write(tmp_path / "ni.txt", "Ni", header)
    said = xa("infer", nickel, "--model", "co-k", code=2).stderr
    assert "this spectrum is Ni; co-k is for Co" in said
    done = xa("infer", nickel, write(tmp_path / "co.txt"), "--model", "co-k", "--format", "json")
    other, own = json.loads(done.stdout)
    assert "this spectrum is Ni; co-k is for Co" in other["set_aside"]
    assert "OS" in own
    assert "1 of 2 spectra set aside: no model 1" in done.stderr


def test_what_a_folder_may_hold(xa, tmp_path):
    folder = tmp_path / "scans"
    write(folder / "good.dat")
    write(folder / "zinc.dat", "Zn")
    (folder / "folder.dat").mkdir()
    (folder / "link.dat").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.dat")
    for name in ("empty1.dat", "empty2.dat"):
        (folder / name).touch()
    with (folder / "zeros.dat").open("wb") as file:
        file.truncate(1 << 30)
    done = xa("infer", folder, "--format", "json", "--strict", code=4)
    assert [(a["id"], "OS" in a) for a in json.loads(done.stdout)] == [("good.dat:0", True), ("zinc.dat:0", False)]
    said = done.stderr
    assert "5 files refused:" in said
    assert f"  {folder / 'empty1.dat'}, {folder / 'empty2.dat'}: " in said
    assert "pipe.dat: found a pipe or device" in said
    assert "link.dat: No such file or directory" in said
    assert "zeros.dat: found 1024 MiB, expected at most 512 MiB" in said
    assert "1 of 2 spectra set aside: no model 1" in said


@pytest.mark.parametrize("words", [["infer"], ["align", "--out", "out"], ["convert", "--out", "run.jsonl"]])
def test_a_file_without_permission_is_refused_when_it_is_read_beside_the_others(words, tmp_path, monkeypatch):
    files = [str(write(tmp_path / name)) for name in ("mine.dat", "of_another_user.dat")]
    monkeypatch.setattr(os, "access", lambda *args, **options: False)
    assert parsed([*words, *files])["files"] == [Path(file) for file in files]


def write_scan(path: Path, sample: str, hour: int, foil: bool) -> None:
    """Write a scan of one day, with the reference foil or with an empty reference channel."""
    x = np.linspace(-150.0, 500.0, 400)
    step = 0.5 + np.arctan(x / 1.5) / np.pi
    rows = np.c_[x + EDGES["Co"], 0.3 + step, step if foil else 0.2 + 0 * x]
    header = f"# XDI/1.0\n# Column.1: energy eV\n# Column.2: mutrans\n# Column.3: murefer\n# Sample.name: {sample}\n"
    header += f"# Element.symbol: Co\n# Element.edge: K\n# Scan.start_time: 2024-05-02T{hour:02d}:00:00\n# ----\n"
    path.write_text(header + "# energy mutrans murefer\n" + "".join(f"{e:.3f} {m:.6f} {r:.6f}\n" for e, m, r in rows))


@pytest.mark.parametrize("command", ["infer", "align", "backfill"])
def test_a_foil_is_forgotten_only_by_the_sample_that_had_it(xa, tmp_path, command):
    """Files of a folder are independent measurements, unless they are of one sample."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_scan(folder / "a.xdi", "Co3O4", 9, foil=True)
    write_scan(folder / "b.xdi", "Co3O4", 12, foil=False)
    write_scan(folder / "c.xdi", "CoO", 13, foil=False)
    if command == "infer":
        rows = json.loads(xa("infer", folder, "--format", "json").stdout)
        flags = [", ".join(row["flags"]) for row in rows]
    elif command == "align":
        xa("align", folder, "--out", out, "--no-pictures")
        flags = [row["flags"] for row in csv.DictReader((out / "alignment.csv").read_text().splitlines())]
    else:
        xa("backfill", folder, "--out", out)
        flags = [row["flags"] for row in sorted(pq.read_table(out).to_pylist(), key=lambda row: row["source"])]
    assert ["foil forgotten" in flag for flag in flags] == [False, True, False]
    assert "no foil edge" in flags[2]


OLD_NAME = os.fsdecode("Präparat.dat".encode("cp1252"))
"""As an old program or a share with another encoding names a file; its bytes are no UTF-8."""


@pytest.mark.parametrize("form", ["npz", "xdi"])
def test_an_alignment_of_a_file_whose_name_is_no_utf8_is_written(tmp_path, form):
    config = load_config({"model": {"use": ["co-k"], "threads": 1}})
    write_aligned(align_files([write(tmp_path / OLD_NAME)], config), tmp_path / "out", form)
    (row,) = csv.DictReader((tmp_path / "out" / "alignment.csv").read_text().splitlines())
    assert (row["id"], row["flags"]) == ("Präparat.dat:0", "")


def test_a_session_keeps_a_file_whose_name_is_no_utf8(xa, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    write(folder / OLD_NAME)
    watch = ("run", "--folder", folder, "--out", out, "--model", "co-k", "--frames")
    xa(*watch, 1)
    write(folder / "next.dat")
    xa(*watch, 2)  # with the journal, which knows that the first file was read
    rows = [*csv.DictReader((out / "descriptors.csv").read_text().splitlines())]
    assert [row["file"] for row in rows] == ["Präparat.dat", "next.dat"]


def test_one_reason_is_said_once(xa, tmp_path):
    for k in range(9):
        write(tmp_path / f"zn{k}.txt", "Zn")
        (tmp_path / f"empty{k}.dat").touch()
    said = xa("infer", tmp_path / "zn*.txt", code=2).stderr
    assert said.count("no model for") == 1
    assert "zn0.txt:0, zn1.txt:0, zn2.txt:0 and 6 more: no model for" in said
    assert xa("infer", tmp_path / "*.dat", code=2).stderr.count("expected") == 1


@pytest.mark.slow
def test_two_sweeps_of_a_file_are_the_same_to_every_command(xa, tmp_path):
    file = write(tmp_path / "in" / "two.txt", sweeps=2)
    means = [a["OS"]["mean"] for a in json.loads(xa("infer", file, "--format", "json").stdout)]
    assert len(means) == 2
    xa("convert", file, "--out", tmp_path / "run.jsonl")
    xa("replay", tmp_path / "run.jsonl", "--out", tmp_path / "replayed")
    (file.parent / "log.txt").write_text("no numbers\n")
    args = ("run", "--folder", file.parent, "--frames", 2, "--out", tmp_path / "watched", "--strict")
    assert "files_not_read     log.txt: found" in xa(*args, code=4).stdout
    (file.parent / "log.txt").unlink()
    for out in ("replayed", "watched"):
        with (tmp_path / out / "descriptors.csv").open() as table:
            assert [float(row["OS_mean"]) for row in csv.DictReader(table)] == pytest.approx(means, abs=1e-3)
    xa("align", file, "--out", tmp_path / "aligned", "--format", "csv", "--no-pictures")
    assert sorted(path.name for path in (tmp_path / "aligned").iterdir()) == [
        "alignment.csv", "two.txt_0_1.csv", "two.txt_0_2.csv",
    ]  # fmt: skip


def test_names_that_collide(xa, tmp_path):
    first, npz = write(tmp_path / "day1" / "CoO.dat"), tmp_path / "alignment.npz"
    table = np.loadtxt(first)
    np.savez(npz, energy=table[:, 0], mu=table[:, 1][None], id=["alignment"])
    files = [first, write(tmp_path / "day2" / "CoO.dat"), write(tmp_path / "day2" / "coo.dat"), npz,
             write(tmp_path / "day2" / "CoO.xdi"), write(tmp_path / "day2" / f"{'名' * 80}.dat")]  # fmt: skip
    out, args = tmp_path / "out", ("--format", "csv", "--no-pictures")
    assert "6 files and alignment.csv" in xa("align", *files, "--out", out, *args).stdout
    names = sorted(path.name for path in out.iterdir())
    assert len({name.casefold() for name in names}) == 7
    assert {"day1_CoO.dat_0.csv", "day2_CoO.dat_0.csv", "day2_coo.dat_0-2.csv", "CoO.xdi_0.csv"} <= {*names}
    before = {name: (out / name).read_bytes() for name in names}
    assert "of which 6 replace earlier ones" in xa("align", *files, "--out", out, *args).stdout
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    taken = write(tmp_path / "clash" / "alignment.csv")
    assert "would be replaced" in xa("align", taken, "--out", taken.parent.parent / "clash", *args, code=2).stderr
    assert "the folder that is read" in xa("align", first.parent, "--out", first.parent, code=2).stderr
    xa("convert", *files[:2], "--out", tmp_path / "run.jsonl")
    documents = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [doc["data"]["file"] for name, doc in documents if name == "event"] == [str(f) for f in files[:2]]
    assert "replaces an earlier file" in xa("convert", first, "--out", tmp_path / "run.jsonl").stderr


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_table_fits_the_terminal_and_cuts_nothing(xa, tmp_path, columns):
    names = ["a.txt", f"{'a_long_name_' * 8}.txt", f"{'酸化ニッケル' * 6}.txt", "[red]é.txt"]
    files = [write(tmp_path / name) for name in names]
    answers = json.loads(xa("infer", *files, "--all", "--format", "json").stdout)
    printed = xa("infer", *files, "--all", columns=columns).stdout
    assert max(map(cell_len, printed.splitlines())) <= columns
    estimates = [e for a in answers for e in a.values() if isinstance(e, dict) and "lo" in e]
    numbers = [f"{e['mean']:.2f} ({e['lo']:.2f}…{e['hi']:.2f})" for e in estimates]
    assert sorted(NUMBER.findall(printed)) == sorted(numbers)
    first_column = "".join(line[:40].split("  ")[0].strip() for line in printed.splitlines())
    for name in names:
        assert f"{name}:0" in first_column


def in_a_terminal(args: list[object], at: Callable[[str], bool]) -> tuple[int, str]:
    """Run a command in a terminal of 80 columns and press Ctrl-C when its output fulfils a condition."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-m", "xas_agent", *map(str, args)], stdin=follower, stdout=follower, stderr=follower,
        env=environment,
    )  # fmt: skip
    os.close(follower)
    shown, pressed = b"", False
    with os.fdopen(leader, "rb", buffering=0) as terminal:
        try:
            while part := terminal.read(4096):
                shown += part
                if not pressed and at(shown.decode(errors="ignore")):
                    process.send_signal(signal.SIGINT)
                    pressed = True
        except OSError:  # the command closed the terminal
            pass
    assert pressed, shown.decode(errors="ignore")
    return process.wait(60), shown.decode(errors="ignore")


def interrupted_alignment(folder: Path, number: int, during: str) -> tuple[Path, int]:
    """Press Ctrl-C in the first part of a kind of work; return the output folder, and the number of kept spectra."""
    files, out = [write(folder / "in" / f"s{k:03d}.txt") for k in range(number)], folder / "out"
    args = ["--log-level", "error", "align", *files, "--out", out]
    code, shown = in_a_terminal(args, lambda text: bool(re.search(rf"{during} .*\b[1-9]\d*/{number}", text)))
    assert code == 130
    assert "Traceback" not in shown
    assert "and alignment.csv in" in shown
    assert "interrupted; the results are those until then" in shown
    with np.load(out / "aligned-co-k.npz") as kept:
        return out, len(kept["id"])


@pytest.mark.slow
def test_what_was_read_until_ctrl_c_is_kept_and_not_drawn(tmp_path):
    out, kept = interrupted_alignment(tmp_path, 400, "reading")
    assert 0 < kept <= 400
    assert not list(out.glob("*.png"))


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_done(tmp_path):
    out, kept = interrupted_alignment(tmp_path, 200, "drawing")
    assert kept == 200
    assert 0 < len(list(out.glob("*.png"))) < 200


@pytest.mark.slow
def test_ctrl_c_while_files_are_read(tmp_path):
    files = [write(tmp_path / "in" / f"s{k:03d}.txt") for k in range(20)]
    args = ["--log-level", "error", "infer", *files * 100, "--format", "csv"]
    code, shown = in_a_terminal(args, lambda text: bool(re.search(r"reading .*\b[1-9]\d*/2000", text)))
    assert code == 130
    assert 0 < len(re.findall(r"^s\d+.txt:0,", shown, re.M)) < 2000
    assert "interrupted" in shown
