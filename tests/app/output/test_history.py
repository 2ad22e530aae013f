"""The results that an agent, or the folder of a session, holds as tables."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_frames import NAMES, frame, started

from xas_agent.agent.types import InputError
from xas_agent.app.output.data_frames import Results
from xas_agent.app.output.history import History, Tail

pytest.importorskip("pandas")
pytest.importorskip("xarray")
OS = {"OS": 3, "OS_p": 0.9, "OS_mean": 3.1, "OS_lo": 2.5, "OS_hi": 3.7, "OS_sd_frame": 0.01}


def note(history: Any, number: int, at: float, run: str = "run", reason: str = "NaN in data") -> None:
    data = {"uid": f"{run}/aside{number}", "reason": reason, "detail": "1 of 9", "frame_seq_num": number, "count": 1}
    history("event", {"descriptor": f"quality/{run}", "time": at, "data": data | NAMES})


def decide(history: Any, action: str, status: str, at: float, id: str = "1", run: str = "run") -> None:
    data = {"id": id, "rule": "hold", "action": action, "args": "{}", "reason": "OS above 3.4", "evidence": "[]"}
    data |= {"confidence": 0.9, "status": status, "status_reason": "", "status_time": at, "by": "", **NAMES}
    history("event", {"descriptor": f"decisions/{run}", "time": at, "data": data})


def kept(*numbers: int, most: int | None = None) -> History:
    history: Any = started(History(most))  # type: ignore[arg-type]  # a recorder in all that it receives
    for number in numbers:
        frame(history, number, **OS)
    return history


def test_frames_are_rows_in_the_order_of_time_also_those_set_aside():
    history = kept(1, 4, 3)
    note(history, 2, 2.0)
    table = Results(history).series()
    assert list(table["seq_num"]) == [1, 2, 3, 4]
    assert list(table["reason"]) == ["", "NaN in data", "", ""]
    assert np.isnan(table["OS_mean"].iloc[1])
    assert table["frame_uid"].iloc[1] == "run/aside2"
    assert table.index[3].timestamp() == 4.0
    assert list(table.columns[:7]) == ["time", "run_uid", "seq_num", "sample", "scan_id", "file", "element"]
    assert list(Results(history).frame()["seq_num"]) == [4]


def test_a_note_on_lost_documents_is_no_frame():
    history = kept(1)
    note(history, 0, 2.0, reason="late")
    assert len(Results(history).series()) == 1
    assert list(Results(history).set_aside()["reason"]) == ["late"]


def test_nothing_yet_is_an_empty_table_of_the_same_columns():
    empty = Results(History())
    assert {"time", "sample", "reason"} <= set(empty.series().columns)
    for table in (empty.series(), empty.frame(), empty.decisions(), empty.set_aside()):
        assert len(table) == 0
    assert empty.dataset().sizes == {"time": 0, "energy": 0}
    assert empty.samples == []


def test_the_oldest_frames_go_and_are_counted():
    history = kept(*range(1, 8), most=3)
    table = Results(history).series()
    assert list(table["seq_num"]) == [5, 6, 7]
    assert table.attrs["frames_not_kept"] == 4


def test_samples_are_chosen_by_name_or_series():
    history: Any = started(kept(1), "b")  # type: ignore[arg-type]
    frame(history, 2, "b", sample="NiO", **OS)
    results = Results(history)
    assert results.samples == ["run", "NiO"]
    assert list(results.series("NiO")["seq_num"]) == [2]
    assert list(results.series(element="Co")["seq_num"]) == [1, 2]
    with pytest.raises(InputError, match="sample: found 'CoO', expected one of 'run', 'NiO'"):
        results.series("CoO")
    with pytest.raises(InputError, match="element: found 'Fe', expected one of 'Co'"):
        results.dataset(element="Fe")


def test_a_dataset_has_units_and_spectra():
    history = kept(1, 2)
    note(history, 3, 3.0)
    history.units |= {"OS_mean": "e"}
    dataset = Results(history).dataset()
    assert dataset.sizes == {"time": 3, "energy": 2}
    assert dataset["OS_mean"].attrs["units"] == "e"
    assert dataset["energy"].attrs["units"] == "eV"
    assert dataset["spectrum"].values[:2, 0].tolist() == [1.0, 2.0]
    assert np.isnan(dataset["spectrum"].values[2]).all()
    assert dataset["time"].values[1] == np.datetime64("1970-01-01T00:00:02", "ns")


def test_spectra_of_two_grids_are_not_mixed():
    history: Any = started(kept(1), "b")  # type: ignore[arg-type]
    history._streams["spectra/b"]["configuration"]["xas_agent"]["data"]["energy_relative_ev"] = [5.0, 6.0]
    frame(history, 2, "b", element="Ni", **OS)
    results = Results(history)
    with pytest.raises(InputError, match="spectra of the elements 'Co', 'Ni', expected those of one: name element="):
        results.dataset()
    assert results.dataset(element="Ni")["energy"].values.tolist() == [5.0, 6.0]
    assert len(results.series()) == 2


def test_a_decision_is_a_row_with_its_latest_status():
    history = kept(1)
    decide(history, "stop", "proposed", 1.0)
    decide(history, "notify", "proposed", 1.5, "2")
    decide(history, "stop", "sent", 2.0)
    decide(history, "stop", "acknowledged", 3.0)
    table = Results(history).decisions().set_index("id")
    assert list(table["status"]) == ["acknowledged", "proposed"]
    assert table.loc["1", "settled_at"] == 3.0


@pytest.mark.parametrize("end", ["resume", "stop", "abort"])
def test_a_pause_holds_until_it_is_over(end):
    history = kept(1)
    decide(history, "pause", "sent", 1.0)
    assert not history.paused
    decide(history, "pause", "acknowledged", 1.0)
    assert Results(history).paused == "by hold: OS above 3.4"
    decide(history, end, "rejected", 2.0, "2")
    assert history.paused
    decide(history, end, "acknowledged", 3.0, "3")
    assert not history.paused


def test_a_run_that_stops_is_not_paused_any_more():
    history = kept(1)
    decide(history, "pause", "acknowledged", 1.0)
    history("stop", {"run_start": "a/run", "uid": "s"})
    assert not history.paused
    assert not history.running


def test_a_document_that_nobody_understands_costs_nothing():
    history = kept(1)
    history("event", {"descriptor": "descriptors/run", "data": {}})
    history("start", {})
    frame(history, 2, **OS)
    assert list(Results(history).series()["seq_num"]) == [1, 2]


def documents(folder: Path) -> tuple[Path, list[bytes]]:
    """A file, and the lines that a session writes to it."""
    lines: list[bytes] = []

    class Lines:
        def __call__(self, name: str, doc: Any) -> None:
            extra = {"xas_agent": True} if name == "start" else {}
            lines.append(json.dumps([name, doc | extra]).encode() + b"\n")

    into: Any = started(Lines())  # type: ignore[arg-type]
    for number in (1, 2, 3):
        frame(into, number, **OS)
    return folder / "documents.jsonl", lines


def test_a_file_that_grows_is_read_as_far_as_it_is_whole(tmp_path):
    path, lines = documents(tmp_path)
    everything = b"".join(lines)
    history, tail = History(), Tail(path)
    for end in range(0, len(everything) + 97, 97):
        path.write_bytes(everything[:end])
        tail(history)
    assert history.documents == len(lines)
    assert list(Results(history).series()["seq_num"]) == [1, 2, 3]


def test_several_threads_read_each_document_once(tmp_path):
    path, lines = documents(tmp_path)
    path.write_bytes(b"".join(lines * 20))
    history, tail = History(), Tail(path)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: tail(history), range(8)))
    assert history.documents == 20 * len(lines)


def test_a_damaged_line_is_passed_over(tmp_path):
    path, lines = documents(tmp_path)
    path.write_bytes(b"".join([*lines[:-2], b"{damaged\n", b"[1]\n", *lines[-2:]]))
    history = History()
    Tail(path)(history)
    assert history.documents == len(lines)


@pytest.mark.parametrize(
    "content", [b'["start", {"uid": "of a beamline"}]\n', b"\x00\x01\n", b"[]\n", b'{"a": 1}\n', b"1\n"]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "documents.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="found documents that no agent wrote; expected the --out of a session"):
        Tail(path)(History())


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"documents\.jsonl: No such file or directory; expected the --out"):
        Tail(tmp_path / "documents.jsonl")(History())
