"""Backfill an archive of spectra, kill it and let it go on, with one worker and with two; print a table.

    python benchmarks/backfill.py [--spectra 1000000] [--folder DIR] [--compare 40000] [--engine local|dask]

The archive is Parquet tables of 50 000 spectra each: computed spectra of cobalt (data/feff), shifted, with a
background and noise. First the whole archive is done with two workers: the command and all its processes are
killed after a third of the parts, and started again; the rows are then counted, and none may be missing or
there twice. Memory is that of all processes together (RSS, sampled each second). Then ``--compare`` spectra
are done with one worker and with two: wall time, and processor time per spectrum, which other work on the
machine does not change much.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xas_agent.app.jobs.archive.folder import MANIFEST

SHARD, CHUNK, EDGE_EV = 50_000, 2_000, 7709.0
ENERGY = EDGE_EV + np.concatenate([np.arange(-150, -20, 10.0), np.arange(-20, 60, 0.8), np.arange(60, 420, 6.0)])
FEFF = Path(__file__).parents[1] / "data" / "feff" / "co_k.npz"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_S = 1.0


def write_archive(folder: Path, spectra: int) -> None:
    """Write the tables that the folder lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(FEFF) as feff:
        energies, mus = feff["energy"], feff["mu"]
    for first in range(0, spectra, SHARD):
        path, count = folder / f"shard-{first // SHARD:04d}.parquet", min(SHARD, spectra - first)
        if path.exists():
            continue
        rng, new = np.random.default_rng(first), path.with_suffix(".tmp")
        schema = pa.schema({"energy": pa.list_(pa.float64()), "mu": pa.list_(pa.float32()), "time": pa.float64()})
        with pq.ParquetWriter(new, schema, compression="zstd") as table:
            for start in range(0, count, CHUNK):
                n = min(CHUNK, count - start)
                mu = _measured(energies, mus, n, rng)
                offsets = np.arange(n + 1, dtype=np.int32) * ENERGY.size
                columns = [
                    pa.ListArray.from_arrays(offsets, np.tile(ENERGY, n)),
                    pa.ListArray.from_arrays(offsets, mu.ravel()),
                    pa.array(1.75e9 + first + start + np.arange(n, dtype=float)),
                ]
                table.write_table(pa.Table.from_arrays(columns, schema=schema))
        os.replace(new, path)


def _measured(energies: np.ndarray, mus: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n spectra, (n, M)."""
    picked, shift = rng.integers(0, len(mus), n), rng.normal(0, 0.5, n)
    made = np.stack(
        [np.interp(ENERGY, energies[i] + s, mus[i], left=0.0) for i, s in zip(picked, shift, strict=True)]
    )
    slope = 0.3 - 3e-4 * (ENERGY - EDGE_EV)
    return (slope + made + rng.normal(0, 2e-3, made.shape)).astype(np.float32)


@dataclass
class Run:
    """One call of the command."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    rss_mb: list[float] = field(default_factory=list)
    """Of all its processes, each second."""
    killed: bool = False


def call(source: Path, out: Path, *options: object, kill_at: int | None = None) -> Run:
    """Run the command; kill it and its processes once the manifest has so many parts."""
    command = [sys.executable, "-P", "-m", "xas_agent", "backfill", source, "--out", out, "--model", "co-k", *options]
    began, run = time.monotonic(), Run()
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        run.rss_mb.append(sum(map(_rss_mb, _tree(process.pid))))
        if kill_at is not None and _parts(out) >= kill_at:
            run.killed = True
            os.killpg(process.pid, signal.SIGKILL)
            kill_at = None
        time.sleep(_SAMPLE_S)
    run.wall_s, run.cpu_s = time.monotonic() - began, used.ru_utime + used.ru_stime
    assert process.stderr is not None
    if os.waitstatus_to_exitcode(status) and not run.killed:
        sys.exit(process.stderr.read().decode())
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    return run


def _parts(out: Path) -> int:
    try:
        return (out / MANIFEST).read_bytes().count(b"\n")
    except OSError:
        return 0


def _tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in _tree(int(child)))]


def _rss_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6
    except OSError:
        return 0.0


def check(out: Path, spectra: int) -> str:
    """Say how many rows are missing or there twice; the rows are read part by part."""
    seen = np.zeros(-(-spectra // SHARD) * SHARD, np.uint8)
    for part in sorted(out.glob("part-*.parquet")):
        table = pq.read_table(part, columns=["source", "index"])
        shard = [int(Path(name).stem[-4:]) for name in table["source"].to_pylist()]
        np.add.at(seen, np.array(shard) * SHARD + table["index"].to_numpy(), 1)
    return f"{int((seen[:spectra] == 0).sum())} missing, {int((seen > 1).sum())} twice"


def _third(values: Sequence[float], which: int) -> float:
    """Return the largest value in the first, second or last third."""
    size = max(1, len(values) // 3)
    return max(values[which * size : (which + 1) * size if which < 2 else None] or [0.0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keeps the archive for the next call")
    parser.add_argument("--compare", type=int, default=40_000)
    parser.add_argument("--engine", choices=("local", "dask"), default="local")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        archive, compared = folder / f"archive-{options.spectra}", folder / f"archive-{options.compare}"
        write_archive(archive, options.spectra)
        write_archive(compared, options.compare)
        size = sum(path.stat().st_size for path in archive.iterdir()) / 1e6
        print(f"archive: {options.spectra} spectra of {ENERGY.size} points, {size:.0f} MB")
        out, engine = Path(temporary) / "out", ("--engine", options.engine, "--workers", 2)
        shards, rest = divmod(options.spectra, SHARD)
        parts = shards * -(-SHARD // 4000) + -(-rest // 4000)
        first = call(archive, out, *engine, kill_at=max(1, parts // 3))
        print(f"killed after {_parts(out)} of {parts} parts, {first.wall_s:.0f} s")
        second = call(archive, out, *engine)
        print(f"continued: {second.wall_s:.0f} s; {check(out, options.spectra)}")
        memory = ", ".join(f"{_third(second.rss_mb, k):.0f}" for k in range(3))
        print(f"largest memory in each third of the time, all processes: {memory} MB")
        done = {n: _compare(compared, Path(temporary) / f"{n}", options.engine, n) for n in (1, 2)}
        for n, run in done.items():
            per = 1e3 * run.cpu_s / options.compare
            rate = options.compare / run.wall_s
            print(f"{n} workers: {rate:.0f} spectra/s, {per:.2f} ms of processor time per spectrum")
        print(f"two workers are {done[1].wall_s / done[2].wall_s:.2f} times as fast as one")


def _compare(archive: Path, out: Path, engine: str, workers: int) -> Run:
    run = call(archive, out, "--engine", engine, "--workers", workers)
    shutil.rmtree(out)
    return run


if __name__ == "__main__":
    main()
