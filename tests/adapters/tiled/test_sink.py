"""The agent's documents as runs of a real Tiled server without plugins."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from deadline import wait_until
from logs import capture_logs
from tiled_server import KEY, empty_catalogue, serving

from xas_agent.adapters.tiled import TiledDestination, TiledSink
from xas_agent.agent.publish import AgentRun, Provenance
from xas_agent.agent.types.estimate import DescriptorEstimate, Estimate
from xas_agent.agent.types.frame import Document, Frame, SetAside
from xas_agent.agent.types.lines import Lines
from xas_agent.app.commands.shared import settings_of
from xas_agent.app.config import ConfigError, load_config

GRID = np.linspace(-10, 70, 81)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILED_API_KEY", KEY)


@pytest.fixture
def port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def frame(run: AgentRun, n: int, **readings: float) -> None:
    estimate = Estimate({"OS": DescriptorEstimate(3 + n / 10, 3.0, 4.0, value=3.0, p=0.6)}, ood_score=0.2, flags=())
    measured = Frame(f"f{n}", "watched", n, 100.0 + n, GRID + 7709, GRID * 0, readings=readings)
    run.frame(measured, {"e0_ev": 7721.5, "edge_step": 0.9, "noise": 0.004}, estimate, GRID * n, 1.0)


def agent_run(emit: Callable[[str, dict[str, Any]], None]) -> AgentRun:
    provenance = Provenance("co_k", "a" * 64, "b" * 64, element="Co", edge="K", grid=GRID)
    return AgentRun({"uid": "watched", "time": 100.0}, provenance, emit)


def written(client: Any, documents: list[Document]) -> None:
    """Compare the run in the catalogue with its documents."""
    contents = client[documents[0][1]["uid"]]
    assert dict(contents.metadata["start"]) == documents[0][1]
    assert dict(contents.metadata["stop"]) == documents[-1][1]
    streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    events = [doc for name, doc in documents if name == "event"]
    table = contents["descriptors"].base["internal"].read()
    published = [doc["data"] for doc in events if streams[doc["descriptor"]] == "descriptors"]
    for key in published[0]:
        assert table[key].tolist() == [data[key] for data in published], key
    spectra = [doc["data"]["spectrum"] for doc in events if streams[doc["descriptor"]] == "spectra"]
    np.testing.assert_array_equal(contents["spectra"]["spectrum"].read(), spectra)


client = pytest.fixture(scope="module")(empty_catalogue)


def address_of(client: Any) -> str:
    return f"tiled://{urlsplit(client.uri).netloc}"


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 1000])
def test_a_run_in_the_catalogue_has_the_published_numbers(client: Any, batch: int) -> None:
    sink = TiledSink(TiledDestination(uri=address_of(client), batch=batch, close_timeout_s=60))
    sink.connect()
    documents: list[Document] = []

    def emit(name: str, doc: dict[str, Any]) -> None:
        documents.append((name, doc))
        sink(name, doc)

    run = agent_run(emit)
    for n in (1, 2, 3):
        frame(run, n, temperature=300.0 + n)
    run.set_aside(SetAside("watched", "f4", 104.0, "too few points"))
    run.close("success")
    sink.close()
    written(client, documents)
    assert client[run.uid]["quality"].base["internal"].read()["reason"].tolist() == ["too few points"]


@pytest.mark.slow
def test_spectra_as_measured_are_not_written(client: Any) -> None:
    sink = TiledSink(TiledDestination(uri=address_of(client), close_timeout_s=60))
    sink.connect()
    run = agent_run(sink)
    lines = Lines(np.zeros(17), np.ones(17), 7720.0, np.nan)
    estimate = Estimate({"OS": DescriptorEstimate(3.1, 3.0, 4.0, 3.0, 0.6, {"3": 0.6, "4": 0.4})}, ood_score=0.2)
    measured = Frame("f1", "watched", 1, 101.0, GRID + 7709, GRID * 0)
    run.frame(measured, {"e0_ev": 7721.5}, estimate, GRID, 1.0, lines)
    run.close("success")
    sink.close()
    contents = client[run.uid]
    assert set(contents) == {"descriptors", "spectra"}
    assert contents.metadata["stop"]["num_events"] == {"descriptors": 1, "spectra": 1}
    np.testing.assert_array_equal(contents["descriptors"]["OS_probabilities"].read(), [[0.6, 0.4]])


@pytest.mark.slow
def test_a_stream_whose_keys_change_goes_on_under_another_name(client: Any) -> None:
    sink = TiledSink(TiledDestination(uri=address_of(client), close_timeout_s=60))
    sink.connect()
    run = agent_run(sink)
    frame(run, 1)
    frame(run, 2, temperature=300.0)
    frame(run, 3)
    run.close("success")
    sink.close()
    contents = client[run.uid]
    assert contents["descriptors"].base["internal"].read()["frame_uid"].tolist() == ["f1", "f3"]
    changed = contents["descriptors_2"].base["internal"].read()
    assert (changed["frame_uid"].tolist(), changed["temperature"].tolist()) == (["f2"], [300.0])
    assert contents["spectra"]["spectrum"].shape == (3, 81)


@pytest.mark.slow
def test_a_run_outlives_its_server(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tiled = pytest.importorskip("tiled.client")
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)  # the sink has to notice
    catalogue = (tmp_path / "catalog.db", "--init", "--write", tmp_path / "data")
    catalogue += ("--write", f"sqlite:///{tmp_path}/tables.db")
    documents: list[Document] = []
    sink = TiledSink(TiledDestination(uri=f"http://127.0.0.1:{port}", close_timeout_s=60))

    def emit(name: str, doc: dict[str, Any]) -> None:
        documents.append((name, doc))
        sink(name, doc)

    with capture_logs() as lines:

        def logged(event: str) -> int:
            return sum(line["event"] == event for line in lines)

        sink.connect()
        run = agent_run(emit)
        frame(run, 1)
        wait_until(lambda: logged("catalogue not written; documents wait") == 1)
        with serving(*catalogue, port=port):
            wait_until(lambda: logged("the catalogue is written again") == 1)
            client = tiled.from_uri(f"http://127.0.0.1:{port}", api_key=KEY)
            wait_until(lambda: run.uid in client and "spectra" in list(client[run.uid]))
        frame(run, 2)
        wait_until(lambda: logged("catalogue not written; documents wait") == 2)
        frame(run, 3)
        run.close("success")
        with serving(*catalogue, port=port):
            sink.close()
            written(client, documents)
            client.context.http_client.close()
    assert KEY not in str(lines)


def test_without_a_server_documents_wait_up_to_a_bound(port: int) -> None:
    pytest.importorskip("bluesky_tiled_plugins", reason="pip install 'xas-agent[tiled]'")
    sink = TiledSink(TiledDestination(uri=f"http://127.0.0.1:{port}", queue=10, close_timeout_s=0.1))
    with capture_logs() as lines:
        sink.connect()
        run = agent_run(sink)
        for n in range(100):
            frame(run, n)
        run.close("success")
        agent_run(sink).close("success")  # no room for its start
        sink.close()
    assert sink.dropped == 3 + 200 - 10 + 1
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["event"] for line in warnings].count("not written to the catalogue") == 1
    assert sum("too slow" in line["event"] for line in warnings) == 2, "once per run"
    assert warnings[-1]["documents"] == 11


@pytest.mark.slow
def test_a_refused_run_is_given_up_and_the_next_is_written(client: Any) -> None:
    sink = TiledSink(TiledDestination(uri=address_of(client), close_timeout_s=60))
    documents: list[Document] = []

    def emit(name: str, doc: dict[str, Any]) -> None:
        documents.append((name, doc))
        sink(name, doc)

    with capture_logs() as lines:
        sink.connect()
        sink("start", {"uid": "not/a/key", "time": 1.0})
        sink("stop", {"uid": "end", "run_start": "not/a/key", "time": 2.0, "exit_status": "success"})
        run = agent_run(emit)
        frame(run, 1)
        run.close("success")
        wait_until(lambda: any("not, or not wholly" in line["event"] for line in lines))
        sink.close()
    written(client, documents)
    waits, given_up = (line for line in lines if line["log_level"] == "warning")
    assert waits["event"] == "catalogue not written; documents wait"
    assert "not, or not wholly" in given_up["event"]
    assert given_up["run"] == "not/a/key"
    left = dict(client.items()).get("not/a/key")  # the server keeps a start that it then cannot find
    assert left is None or "stop" not in left.metadata


def test_where_the_agents_documents_go() -> None:
    assert settings_of(None, publish="tiled://here:8000/bmm").publish.tiled.uri == "tiled://here:8000/bmm"
    both = load_config({"publish": {"address": "zmq://a:1", "tiled": "http://a:8000"}})
    assert both.publish is not None
    assert both.publish.tiled == TiledDestination(uri="http://a:8000")
    assert settings_of(None, publish="zmq://here:5578", connect_timeout=3.0).publish.connect_timeout_s == 3.0
    for content, message in (
        ({}, "expected: address, tiled, nats or kafka"),
        ({"tiled": "zmq://a:1"}, "expected: tiled://HOST:PORT/PATH"),
        ({"tiled": "http://a:8000?api_key=secret"}, "a URI without a key"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config({"publish": content})
