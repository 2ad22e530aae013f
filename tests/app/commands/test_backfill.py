"""The command backfill in real processes: kills, Ctrl-C, wrong use, Dask and Tiled."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from archives import documents, identities, rows_of, write_table
from deadline import wait_until
from forked import run_command
from tiled_server import KEY, serving, write

from xas_agent.app.jobs.archive.folder import MANIFEST

SPECTRA = 300


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    write_table(folder / "a.parquet", 0, 190, broken=frozenset({7}))
    write_table(folder / "later" / "b.parquet", 190, SPECTRA)
    return folder


@pytest.fixture(scope="module")
def whole(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backfill without interruption."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run_command(*line(archive, out))
    return out


def line(archive: Path, out: Path, *more: object) -> list[object]:
    return ["backfill", archive, "--out", out, "--part-rows", 20, "--model", "co-k", *more]


def started(*args: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-m", "xas_agent", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def assert_same_rows(out: Path, expected: Path) -> None:
    """Single precision rounds otherwise in another process, where arrays lie elsewhere in memory."""
    for row, other in zip(rows_of(out), rows_of(expected), strict=True):
        assert row == {key: pytest.approx(v, abs=5e-6) if isinstance(v, float) else v for key, v in other.items()}


def parts(out: Path) -> int:
    return (out / MANIFEST).read_bytes().count(b"\n") if (out / MANIFEST).exists() else 0


EXPECTED = [("a.parquet", k) for k in range(190)] + [("b.parquet", k) for k in range(SPECTRA - 190)]


def test_every_spectrum_has_one_row(whole):
    assert identities(whole) == EXPECTED
    (aside,) = [row for row in rows_of(whole) if row["reason"]]
    assert aside["index"] == 7
    assert len(pq.read_table(whole).schema.names) > 30  # a folder of tables to any reader


def kill_after(archive: Path, out: Path, count: int) -> None:
    """Start a backfill, and kill it as soon as it has so many parts."""
    process = started(*line(archive, out))
    try:
        wait_until(lambda: parts(out) >= count or process.poll() is not None)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_killed_and_continued_it_has_the_same_rows(xa, archive, whole, tmp_path):
    out = tmp_path / "out"
    kill_after(archive, out, 2)
    kill_after(archive, out, 4)
    before = parts(out)
    assert 4 <= before < parts(whole)
    done = xa(*line(archive, out))
    assert f"spectra      {SPECTRA}" in done.stdout
    assert_same_rows(out, whole)
    again = xa(*line(archive, out))
    assert f"spectra      {SPECTRA}" in again.stdout
    assert_same_rows(out, whole)


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(xa, archive, whole, tmp_path):
    process = started(*line(archive, tmp_path / "out"))
    try:
        wait_until(lambda: parts(tmp_path / "out") >= 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    assert not list((tmp_path / "out").glob(".part-*"))
    assert 1 <= parts(tmp_path / "out") < parts(whole)
    xa(*line(archive, tmp_path / "out"))
    assert_same_rows(tmp_path / "out", whole)


def test_a_dry_run_counts_and_makes_nothing(xa, archive, whole, tmp_path):
    said = xa(*line(archive, tmp_path / "out", "--dry-run")).stdout
    assert f"tables       2, with {SPECTRA} spectra" in said
    assert "parts to do  16" in said
    assert not (tmp_path / "out").exists()
    assert "parts to do  0" in xa(*line(archive, whole, "--dry-run")).stdout


@pytest.mark.slow
def test_exit_codes(xa, archive, whole, tmp_path):
    assert "set aside" in xa(*line(archive, whole, "--strict"), code=4).stdout
    assert "with other part rows" in xa("backfill", archive, "--out", whole, "--model", "co-k", code=2).stderr
    said = xa(*line(archive, tmp_path / "out", "--scheduler", "tcp://127.0.0.1:1"), code=2).stderr
    assert "--scheduler: no effect without --engine dask" in said
    assert "expected files of spectra" in xa(*line(tmp_path / "none.xdi", tmp_path / "out"), code=2).stderr
    unreachable = ("backfill", "tiled://127.0.0.1:1", "--out", tmp_path / "out", "--model", "co-k")
    assert "nothing answered" in xa(*unreachable, code=3).stderr
    assert not (tmp_path / "out").exists()


def test_new_files_are_added_and_changed_ones_named(xa, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    write_table(folder / "a.parquet", 0, 5)
    xa(*line(folder, out))
    write_table(folder / "a.parquet", 0, 4)
    write_table(folder / "b.parquet", 5, 8)
    done = xa(*line(folder, out))
    assert "1 files or parts of files changed since they were read" in done.stderr
    assert identities(out) == [("a.parquet", k) for k in range(5)] + [("b.parquet", k) for k in range(3)]


def test_files_that_cannot_be_read_are_named(xa, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    write_table(folder / "a.parquet", 0, 2)
    for k in range(7):
        (folder / f"broken{k}.dat").write_text("no numbers\n")
    for done in (xa(*line(folder, out)), xa(*line(folder, out))):  # also where nothing is left to do
        assert "set aside    file not readable 7" in done.stdout
        assert "7 files refused:" in done.stderr
        assert f"  {folder}/broken0.dat: found 0 rows of numbers" in done.stderr
        assert f"  {folder}/broken4.dat: " in done.stderr
        assert "broken5" not in done.stderr
        assert "and 2 more: the tables have a row for each, with the reason 'file not readable'" in done.stderr


@pytest.mark.slow
def test_processes_give_the_rows_of_one(xa, archive, whole, tmp_path):
    xa(*line(archive, tmp_path / "out", "--workers", 2))
    assert_same_rows(tmp_path / "out", whole)


@pytest.mark.slow
def test_workers_end_with_a_killed_command(archive, whole, tmp_path):
    process = started(*line(archive, tmp_path / "out", "--workers", 2))
    try:
        wait_until(lambda: parts(tmp_path / "out") >= 1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not any(_runs(int(child)) for child in children), 20)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_dask_gives_the_same_rows(xa, archive, whole, tmp_path):
    pytest.importorskip("distributed")
    xa(*line(archive, tmp_path / "out", "--engine", "dask", "--workers", 2))
    assert_same_rows(tmp_path / "out", whole)


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_loses_and_doubles_nothing(archive, whole, tmp_path):
    pytest.importorskip("distributed")
    address = tmp_path / "scheduler.json"
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
         "--no-dashboard", "--scheduler-file", str(address)], **quiet,
    )  # fmt: skip
    processes: list[subprocess.Popen[Any]] = [scheduler]

    def worker() -> "subprocess.Popen[Any]":
        line = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(address)]
        line += ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
        processes.append(subprocess.Popen(line, **quiet))
        return processes[-1]

    try:
        wait_until(address.exists)
        uri = json.loads(address.read_text())["address"]
        first = worker()
        out = tmp_path / "out"
        command = started(*line(archive, out, "--engine", "dask", "--scheduler", uri))
        processes.append(command)
        wait_until(lambda: parts(out) >= 2)
        first.kill()
        worker()
        assert command.wait(100) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert_same_rows(out, whole)


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer(xa, archive, tmp_path):
    pytest.importorskip("distributed")
    args = ("--engine", "dask", "--scheduler", "tcp://127.0.0.1:1")
    assert "no scheduler answers" in xa(*line(archive, tmp_path / "out", *args), code=3).stderr


@pytest.mark.slow
def test_the_runs_of_a_catalogue(xa, tmp_path, monkeypatch):
    with serving("--temp") as address:
        from tiled.client import from_uri

        client = from_uri(f"http://{address}", api_key=KEY)
        write(client, documents(0, 6))
        write(client, documents(6, 10))
        client.context.http_client.close()
        monkeypatch.setenv("TILED_API_KEY", KEY)
        xa("backfill", f"tiled://{address}", "--out", tmp_path / "runs", "--model", "co-k")
        xa("backfill", f"tiled://{address}", "--out", tmp_path / "runs", "--model", "co-k")
    table = write_table(tmp_path / "a.parquet", 0, 6)
    xa("backfill", table, "--out", tmp_path / "table", "--model", "co-k")
    rows, expected = rows_of(tmp_path / "runs"), rows_of(tmp_path / "table")
    assert len(rows) == 10
    assert sorted({row["index"] for row in rows}) == list(range(6))
    of_first = [row for row in rows if sum(r["source"] == row["source"] for r in rows) == 6]
    for row, other in zip(of_first, expected, strict=True):
        assert row["OS_mean"] == pytest.approx(other["OS_mean"], abs=1e-6)
