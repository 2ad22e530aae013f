"""The agent's documents in bluesky's own callbacks, which expect what a RunEngine gives."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from bluesky.callbacks import LivePlot, LiveTable
from bluesky.callbacks.best_effort import BestEffortCallback
from tiled_server import empty_catalogue

from xas_agent.agent.publish import AgentRun, Provenance
from xas_agent.agent.types.estimate import DescriptorEstimate, Estimate
from xas_agent.agent.types.frame import Document, Frame, SetAside
from xas_agent.agent.types.lines import Lines
from xas_agent.agent.types.scan import Scan

GRID = np.linspace(-10, 70, 81)


@pytest.fixture(params=[Scan(), Scan("cell", "LiCoO2", 7, "run.dat")], ids=["no scan_id", "scan_id"])
def documents(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Document]:
    monkeypatch.setenv("BLUESKY_DEBUG_CALLBACKS", "1")  # otherwise bluesky suppresses exceptions
    mpl.use("agg")
    documents: list[Document] = []
    provenance = Provenance("co_k", "a" * 64, "b" * 64, element="Co", edge="K", grid=GRID)
    start, scan = {"uid": "watched", "time": 100.0}, request.param
    run = AgentRun(start, provenance, lambda name, doc: documents.append((name, doc)), scan=scan)
    probabilities = {"2": 0.1, "3": 0.6, "4": 0.3}
    known = DescriptorEstimate(3.4, 3.3, 3.5, value=3.0, p=0.6, probabilities=probabilities)
    estimate = Estimate({"OS": known}, ood_score=0.2, flags=())
    lines = Lines(np.zeros(17), np.ones(17), 7720.0, np.nan)
    for n in (1, 2, 3):
        frame = Frame(f"f{n}", "watched", n, 100.0 + n, GRID + 7709, GRID * 0, scan=scan)
        run.frame(frame, {"e0_ev": 7721.5, "edge_step": 0.9, "noise": 0.004}, estimate, GRID / n, 1.0, lines)
    run.set_aside(SetAside("watched", "f4", 104.0, "too few points"))
    run.close("success")
    return documents


def give(callback: Any, documents: list[Document]) -> None:
    for name, doc in documents:
        callback(name, doc)


def test_live_table(documents: list[Document]) -> None:
    lines: list[str] = []
    give(LiveTable(["OS_mean", "ood_score"], stream_name="descriptors", out=lines.append), documents)
    text = "\n".join(lines)
    assert text.count("3.400") == 3
    assert f"generator xas_agent ['{documents[0][1]['uid'][:8]}'] (scan num: " in text


def test_best_effort_callback(documents: list[Document], capsys: pytest.CaptureFixture[str]) -> None:
    callback = BestEffortCallback()
    callback.disable_plots()
    give(callback, documents)
    assert "New stream: 'descriptors'" in capsys.readouterr().out


def test_live_plot(documents: list[Document]) -> None:
    plot = (
        LivePlot("OS_mean", stream_name="descriptors")
        if "stream_name" in LivePlot.__init__.__code__.co_varnames
        else LivePlot("OS_mean")
    )
    give(plot, documents)
    assert plot.y_data == [3.4, 3.4, 3.4]


def test_suitcase(documents: list[Document], tmp_path: Path) -> None:
    jsonl = pytest.importorskip("suitcase.jsonl")
    jsonl.export(iter(documents), tmp_path, file_prefix="{start[plan_name]}-{start[scan_id]}")
    (path,) = tmp_path.iterdir()
    assert len(path.read_text().splitlines()) == len(documents)


catalogue = pytest.fixture(scope="module")(empty_catalogue)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 10_000])
def test_tiled_writer(documents: list[Document], catalogue: Any, batch_size: int) -> None:
    from bluesky_tiled_plugins import TiledWriter

    give(TiledWriter(catalogue, batch_size=batch_size), documents)
    run = catalogue[documents[0][1]["uid"]]
    assert dict(run.metadata["start"]) == documents[0][1]
    assert "Renamed" not in str(run.metadata.get("notes")), "no key is one that bluesky reserves"
    assert dict(run.metadata["stop"]) == documents[-1][1]
    streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    assert set(run) == set(streams.values()) == {"descriptors", "spectra", "measured", "quality"}
    for uid, stream in streams.items():
        events = [doc for name, doc in documents if name == "event" and doc["descriptor"] == uid]
        table = run[stream].base["internal"].read()
        assert table["time"].tolist() == [event["time"] for event in events]
        for key, value in events[0]["data"].items():
            values = [event["data"][key] for event in events]
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(run[stream][key].read(), values, err_msg=key)
            else:
                assert table[key].tolist() == values, key
    grid = run["spectra"].metadata["configuration"]["xas_agent"]["data"]["energy_relative_ev"]
    np.testing.assert_array_equal(grid, GRID)
