"""An agent in a program, and the folder of a session: the same tables, those of descriptors.csv."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import count

from xas_agent import XASAgent, read_session
from xas_agent.adapters.files import FileSink
from xas_agent.agent.types import InputError
from xas_agent.app.output.folder import DOCUMENTS, Tables
from xas_agent.app.output.kept import Alarm
from xas_agent.sim_beamline.beamline import detectors

pd = pytest.importorskip("pandas")
pytest.importorskip("xarray")
FRAMES = 4


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[XASAgent, Path]:
    """An agent that answered frames, and the folder with its documents and tables."""
    folder = tmp_path_factory.mktemp("session")
    RE = RunEngine()
    agent = XASAgent.from_config({"model": {"use": ["co-k"]}})
    documents = FileSink(folder / DOCUMENTS)
    agent.subscribe(documents)
    RE(count(detectors(), num=FRAMES, md={"element": "Co", "edge": "K", "sample_name": "cathode"}), agent)
    assert agent.wait(60)
    agent.close()
    documents.close()
    tables = Tables(folder, Alarm(folder))
    list(tables.read(folder / DOCUMENTS))
    tables.close()
    return agent, folder


def test_the_series_of_an_agent_is_descriptors_csv(finished):
    agent, folder = finished
    written = pd.read_csv(folder / "descriptors.csv", keep_default_na=False)
    table = agent.series("cathode")
    assert len(table) == FRAMES
    assert list(table.columns[: len(written.columns)]) == list(written.columns)
    pd.testing.assert_frame_equal(table[written.columns].reset_index(drop=True), written, check_dtype=False)
    assert table.attrs["units"]["OS_mean"] == "e"
    assert list(agent.frame()["seq_num"]) == [FRAMES]


def test_a_folder_gives_the_same_as_the_agent(finished):
    agent, folder = finished
    for path in (folder, str(folder), folder / DOCUMENTS):
        session = read_session(path)
        pd.testing.assert_frame_equal(session.series(), agent.series())
        assert session.series().attrs == agent.series().attrs
    assert session.dataset().equals(agent.dataset())
    assert session.samples == ["cathode"]
    assert repr(session).startswith("<Results: 4 frames of cathode; .series()")


def test_a_dataset_has_the_aligned_spectra(finished):
    agent, _ = finished
    dataset = agent.dataset()
    assert dataset.sizes["time"] == FRAMES
    assert dataset["spectrum"].sizes == {"time": FRAMES, "energy": len(agent.models[0].grid)}
    assert dataset["energy"].values == pytest.approx(agent.models[0].grid.energy)
    assert np.isfinite(dataset["spectrum"]).all()
    assert dataset["OS_mean"].attrs["units"] == "e"
    assert "co-k" in dataset.attrs["models"]
    assert "torch" in dataset.attrs["versions"]


def test_spectra_may_come_after_the_descriptors_of_many_frames(finished, tmp_path):
    agent, folder = finished
    documents = [json.loads(line) for line in (folder / DOCUMENTS).read_text().splitlines()]
    stream = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    events = [d for d in documents if d[0] == "event"]
    others = [d for d in documents if d[0] != "event"]
    events.sort(key=lambda d: list(stream.values()).index(stream[d[1]["descriptor"]]))  # as pages have them
    order = [*others[:-1], *events, others[-1]]
    (tmp_path / DOCUMENTS).write_text("".join(json.dumps(d) + "\n" for d in order))
    assert read_session(tmp_path).dataset().equals(agent.dataset())
    assert np.isfinite(agent.dataset()["spectrum"]).all()


def test_a_folder_without_a_session_is_told(tmp_path):
    with pytest.raises(InputError, match=r"documents\.jsonl: No such file"):
        read_session(tmp_path)


def test_an_agent_that_keeps_nothing_has_empty_tables():
    with XASAgent.from_config({"model": {"use": ["co-k"]}}, keep=0) as agent:
        RunEngine()(count(detectors(), num=1, md={"element": "Co", "edge": "K"}), agent)
        assert agent.wait(60)
        assert len(agent.series()) == 0


def test_without_the_extra_the_message_names_it(finished, monkeypatch):
    agent, _ = finished
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'xas-agent\[notebook\]'"):
        agent.series()
