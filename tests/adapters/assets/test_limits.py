"""Files that documents name: what is not read, and what cannot hold up the agent."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deadline import wait_until

from xas_agent.adapters.assets.deadline import MAX_HANGING, Deadline, ReadsHang
from xas_agent.adapters.assets.files import HANDLERS, AssetSettings
from xas_agent.adapters.assets.hdf5 import rows_of
from xas_agent.adapters.assets.opening import MAX_BYTES, AssetRefused, NotYet
from xas_agent.adapters.assets.streams import MAX_DATUM_ROWS, MAX_ROWS_AHEAD, StreamRows
from xas_agent.agent.types.run import RunDocument, RunInfo

h5py = pytest.importorskip("h5py", reason="the files are HDF5: pip install 'xas-agent[formats]'")

# ------------------------------------------------------------------ the deadline


def test_a_read_returns_its_value_or_raises_its_error() -> None:
    in_time = Deadline(60)
    assert in_time(lambda: 3) == 3
    with pytest.raises(NotYet, match="no rows"):
        in_time(lambda: (_ for _ in ()).throw(NotYet("no rows")))


def test_reads_that_hang_are_abandoned_and_limited_in_number() -> None:
    go, in_time = threading.Event(), Deadline(0.01)
    try:
        for _ in range(MAX_HANGING):
            with pytest.raises(ReadsHang, match=r"did not end within 0\.01 s"):
                in_time(go.wait)
        with pytest.raises(ReadsHang, match=f"{MAX_HANGING} earlier reads hang"):
            in_time(lambda: 1)
    finally:
        go.set()
    wait_until(lambda: not any(thread.is_alive() for thread in in_time._hanging))
    assert Deadline(60)(lambda: 1) == 1


# ------------------------------------------------------------------- size of HDF5


def huge(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...] | None) -> Path:
    """A small file with a dataset of fill values."""
    with h5py.File(path, "w") as file:
        file.create_dataset("d", shape, "f8", chunks=chunks, fillvalue=1.0)
    assert path.stat().st_size < 10_000
    return path


@pytest.mark.parametrize(
    ("shape", "chunks", "says"),
    [
        ((1, 500_000_000), (1, 1000), "d has 3815 MiB, at most 128 MiB are read"),
        ((1, 500_000_000), (1, 100_000_000), "a chunk of /d has 763 MiB, at most 128 MiB are read"),
    ],
    ids=["row", "chunk"],
)
def test_a_huge_row_is_refused_before_it_is_allocated(
    tmp_path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], says: str
) -> None:
    path = huge(tmp_path / "a.h5", shape, chunks)
    with pytest.raises(AssetRefused, match=says):
        rows_of(path, "d", 0, 1)


def test_a_row_larger_than_its_descriptor_announces_is_refused(tmp_path: Path) -> None:
    path = huge(tmp_path / "a.h5", (1, 1_000_000), (1, 1000))
    with pytest.raises(AssetRefused, match=r"1000000 values in a row of \(1000000,\), announced 90"):
        rows_of(path, "d", 0, 1, row_size=90)
    assert rows_of(path, "d", 0, 1, row_size=1_000_000).nbytes < MAX_BYTES


# --------------------------------------------------------------- links and pipes


@pytest.mark.parametrize("way", ["link", "soft link", "virtual", "bytes"])
def test_no_way_within_hdf5_leads_to_a_pipe(tmp_path: Path, way: str) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        if way == "bytes":
            file.create_dataset("d", (3,), "f8", external=[(str(tmp_path / "pipe.h5"), 0, 24)])
        elif way == "virtual":
            layout = h5py.VirtualLayout((3,), "f8")
            layout[:] = h5py.VirtualSource("pipe.h5", "d", (3,))
            file.create_virtual_dataset("d", layout)
        else:
            file["e" if way == "soft link" else "d"] = h5py.ExternalLink("pipe.h5", "d")
            if way == "soft link":
                file["d"] = h5py.SoftLink("/e")
    within = AssetSettings(roots=(str(tmp_path),)).inside
    read = Deadline(60)
    with pytest.raises(AssetRefused, match="not a regular file"):  # and not ReadsHang
        read(lambda: rows_of(path, "d", 0, 3, within))


@pytest.mark.parametrize("spec", ["AD_HDF5", "APB", "PIZZABOX_ENC_FILE_TXT_PD"])
def test_a_pipe_that_takes_the_place_of_a_file_blocks_no_handler(tmp_path: Path, spec: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.utime(tmp_path / "pipe", (1e9, 1e9))
    read = HANDLERS[spec](tmp_path / "pipe")
    with pytest.raises(AssetRefused, match="not a regular file"):
        Deadline(60)(lambda: read(**({"point_number": 0} if spec == "AD_HDF5" else {})))


# ------------------------------------------------------------------------- roots


def test_without_roots_no_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.h5").touch()
    for address in (str(tmp_path / "a.h5"), f"file://localhost{tmp_path}/a.h5", "/proc/kmsg", "none.h5"):
        with pytest.raises(AssetRefused, match=r"not read, because assets\.roots is not set"):
            AssetSettings().locate(address)


# --------------------------------------------------------- windows of StreamDatums


STREAM: dict[str, Any] = {
    "source": "SIM",
    "dtype": "number",
    "shape": [1],
    "dtype_numpy": "<f8",
    "external": "STREAM:",
}


@pytest.fixture
def rows(tmp_path: Path) -> StreamRows:
    """The rows of a stream with two external data keys, ``a`` and ``b``, each with its file."""
    pytest.importorskip("bluesky.consolidators", reason="StreamDatums are read through bluesky's consolidators")
    resources = {}
    for key in "ab":
        with h5py.File(tmp_path / f"{key}.h5", "w") as file:
            file[key] = np.arange(3.0 * MAX_ROWS_AHEAD)
        resources[key] = {
            "uid": key,
            "data_key": key,
            "mimetype": "application/x-hdf5",
            "uri": f"file://localhost{tmp_path}/{key}.h5",
            "parameters": {"dataset": key, "chunk_shape": [1024]},
        }
    descriptor = {
        "uid": "d",
        "run_start": "r",
        "name": "primary",
        "time": 0.0,
        "data_keys": {"a": STREAM, "b": STREAM},
    }
    document = RunDocument(RunInfo("r"), "descriptor", descriptor, 0.0)
    return StreamRows(AssetSettings(roots=(str(tmp_path),), read_s=60), document, "ab", resources, Deadline(60))


def datum(key: str, start: int, stop: int) -> dict[str, Any]:
    both = {"indices": {"start": start, "stop": stop}, "seq_nums": {"start": start + 1, "stop": stop + 1}}
    return {"uid": f"{key}{start}", "stream_resource": key, "descriptor": "d", **both}


def test_rows_are_read_in_windows(rows: StreamRows) -> None:
    n = 2 * MAX_ROWS_AHEAD + 10
    rows.datum(datum("a", 0, n), 0.0)
    for now in (0.0, 0.1, 0.2):  # alone, no row of "a" makes an Event, and only a window is held
        assert rows.advance(now) == []
        assert len(rows._rows) == MAX_ROWS_AHEAD
    rows.datum(datum("b", 0, n), 0.3)
    found = []
    for now in range(1, 10):
        found += rows.advance(float(now))
        assert len(rows._rows) <= MAX_ROWS_AHEAD
    assert [event.doc["seq_num"] for event in found] == list(range(1, n + 1))
    assert all(event.doc["data"] == {"a": k, "b": k} for k, event in enumerate(found))


@pytest.mark.parametrize("stop", [MAX_DATUM_ROWS + 1, 5_000_000, -1, 1.5, None])
def test_a_stream_datum_of_too_many_rows_is_malformed(rows: StreamRows, stop: Any) -> None:
    with pytest.raises(
        ValueError, match=f"found indices 0 to {stop} in a stream_datum, expected at most {MAX_DATUM_ROWS} rows"
    ):
        rows.datum({**datum("a", 0, 1), "indices": {"start": 0, "stop": stop}}, 0.0)
    assert not rows.reading
