"""Against a real Tiled server without plugins (``tiled serve catalog``), filled by bluesky's own TiledWriter."""

import io
import json
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pyarrow as pa
import pytest
import shapes
import yaml
from forked import run_command
from pydantic import ValidationError
from tiled_server import KEY, write

from xas_agent.adapters.errors import EndpointUnreachable
from xas_agent.adapters.tiled import TiledEndpoint, TiledSource
from xas_agent.adapters.tiled.documents import documents_of
from xas_agent.agent.types import REPLAYED_S
from xas_agent.app.commands.shared import settings_of
from xas_agent.app.config import ConfigError, load_config


def check(frames: list[Any], recording: shapes.Recording) -> None:
    assert len(frames) == len(recording.sweeps)
    for frame, true in zip(frames, recording.sweeps, strict=True):
        np.testing.assert_allclose(frame.energy, true.energy, rtol=0, atol=1e-5)
        np.testing.assert_allclose(frame.mu, true.mu, rtol=1e-6)
        assert (frame.element, frame.edge, frame.direction) == ("Co", "K", true.direction)


@pytest.mark.slow
def test_past_runs_give_the_frames_that_went_in(catalogue: Any, bench: Any) -> None:
    client, endpoint, folder = catalogue
    step, files = shapes.sst1(folder), shapes.haven_step(folder)
    write(client, step.documents)
    write(client, files.documents)
    documents = list(TiledSource(endpoint))
    assert [name for name, _ in documents].count("start") == 2
    assert documents[0][0] == "start"
    assert documents[-1][0] == "stop"
    split = next(k for k, (name, _) in enumerate(documents) if name == "stop") + 1
    for part in (documents[:split], documents[split:]):
        haven = part[0][1]["plan_name"] == "xafs_scan"
        done = bench({"preset": "haven" if haven else "sst1"}).feed(part).wait(5.0).end()
        assert not done.asides
        check(done.frames, files if haven else step)


@pytest.mark.slow
def test_only_as_many_past_runs_as_asked_for(catalogue: Any) -> None:
    client, endpoint, folder = catalogue
    uids = []
    for k in range(3):
        documents = shapes.sst1(folder).documents
        documents[0][1]["time"] += k
        uids.append(documents[0][1]["uid"])
        write(client, documents)
    for past, expected in ((2, uids[1:]), (0, []), (9, uids)):
        found = TiledSource(endpoint.model_copy(update={"past": past}))
        assert [doc["uid"] for name, doc in found if name == "start"] == expected


@pytest.mark.slow
def test_a_run_is_followed_while_it_is_written(catalogue: Any, bench: Any) -> None:
    client, endpoint, folder = catalogue
    config = {
        "preset": "diamond",
        "fields": {"element": "Co", "edge": "K", "relation": {"kind": "bragg", "d_spacing_ang": 3.1356}},
    }
    write(client, shapes.sst1(folder).documents)  # before
    recording = shapes.diamond(folder, sweeps=3)
    half = len(recording.documents) // 2
    source = TiledSource(endpoint.model_copy(update={"past": 0, "follow": True, "poll_s": 0.05}))
    source.connect()
    writer = write(client, recording.documents[:half], batch_size=1)
    done = bench(config)
    read: list[Any] = []
    reading = iter(source)
    for name, doc in reading:
        read.append((name, doc))
        done.feed([(name, doc)])
        rows = [doc["indices"]["stop"] for n, doc in read if n == "stream_datum"]
        if rows and len(rows) % 3 == 0 and half < len(recording.documents):
            for n, d in recording.documents[half:]:
                writer(n, d)
            half = len(recording.documents)
        if name == "stop":
            source.close()
    assert [name for name, _ in read].count("start") == 1
    ranges = [(d["stream_resource"], d["indices"]["start"]) for name, d in read if name == "stream_datum"]
    assert len(set(ranges)) == len(ranges) >= 6, "rows are announced as they come, each once"
    done.wait(5.0).end()
    assert not done.asides
    check(done.frames, recording)


@pytest.mark.slow
def test_only_new_events_are_read_and_only_complete_ones(catalogue: Any) -> None:
    client, _, _ = catalogue
    run = event_model.compose_run()
    keys = {
        "mu": {"source": "x", "dtype": "array", "shape": [40], "dtype_numpy": "<f8"},
        "few": {"source": "x", "dtype": "array", "shape": [2], "dtype_numpy": "<f8"},
        "n": {"source": "x", "dtype": "integer", "shape": []},
    }
    stream = run.compose_descriptor(name="primary", data_keys=keys, configuration={}, object_keys={"x": list(keys)})
    writer = write(client, [("start", run.start_doc), ("descriptor", stream.descriptor_doc)], batch_size=2)

    def add(*numbers: int) -> None:
        for n in numbers:
            data = {"mu": [n + k / 7 for k in range(40)], "few": [n, n + 0.5], "n": n}
            writer("event", dict(stream.compose_event(data=data, timestamps=dict.fromkeys(data, float(n)))))

    rows: dict[str, int] = {}

    def read() -> list[int]:
        events = [doc for name, doc in documents_of(client[run.start_doc["uid"]], rows) if name == "event"]
        for event in events:
            n = event["data"]["n"]
            assert event["data"] == {"mu": [n + k / 7 for k in range(40)], "few": [n, n + 0.5], "n": n}
            assert event["timestamps"] == dict.fromkeys(keys, float(n))
            assert event["seq_num"] == n
        return [event["data"]["n"] for event in events]

    assert read() == []
    add(1, 2, 3)
    assert read() == [1, 2]
    assert read() == []
    array = client[run.start_doc["uid"]]["primary"]["mu"]
    array.patch(np.full((1, 40), np.nan), offset=(2,), extend=True)  # its row is not yet there
    assert read() == []
    again = documents_of(client[run.start_doc["uid"]], {})
    assert [doc["seq_num"] for name, doc in again if name == "event"] == [1, 2]


@pytest.mark.slow
def test_what_is_no_run_does_not_keep_from_the_others(catalogue: Any) -> None:
    client, endpoint, folder = catalogue
    client.create_container(key="odd", metadata={"start": {"uid": "odd", "time": 1.0}, "stop": {"uid": "end"}})
    write(client, shapes.sst1(folder).documents)
    reading, found = iter(TiledSource(endpoint)), []
    with pytest.raises(EndpointUnreachable, match="run odd not read"):
        found.extend(reading)  # it keeps what came before
    assert [name for name, _ in found].count("stop") == 1
    following = TiledSource(endpoint.model_copy(update={"follow": True, "poll_s": 0.05}))
    for name, _ in following:
        if name == "stop":
            following.close()


@pytest.mark.slow
def test_the_agents_own_runs_are_passed_over(catalogue: Any) -> None:
    client, endpoint, folder = catalogue
    documents = shapes.sst1(folder).documents
    documents[0][1]["xas_agent"] = True
    write(client, documents)
    assert list(TiledSource(endpoint)) == []


@pytest.mark.slow
def test_the_command_reads_a_catalogue_and_writes_to_it(
    catalogue: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, endpoint, folder = catalogue
    recording = shapes.haven_step(folder)
    write(client, recording.documents)
    model = {"use": ["co-k"], "threads": 1}
    config = {"tiled": endpoint.model_dump(), "publish": {"tiled": endpoint.uri}, "preset": "haven", "model": model}
    config["assets"] = {"roots": [str(folder)]}
    config["rules"] = [
        {"name": "r", "trigger": {"kind": "threshold", "quantity": "OS", "above": 0}, "action": "stop"}
    ]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("TILED_API_KEY", KEY)
    said = run_command("run", "--config", tmp_path / "mine.yaml", "--out", tmp_path / "out").stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["frames"], summary["frames_set_aside"]) == (1, {})
    # A decision on a run that is long over would stop the plan of another.
    assert summary["decisions"] == 0
    assert "no rule decides on them" in said
    from tiled.queries import Key

    (answer,) = client.search(Key("start.xas_agent") == True).values()  # noqa: E712
    assert answer.metadata["start"]["parent_uid"] == recording.documents[0][1]["uid"]
    assert answer.metadata["stop"]["num_events"] == {"descriptors": 1, "spectra": 1}
    with io.BytesIO() as buffer:  # ``read()`` makes texts of short arrays
        answer["descriptors"].base["internal"].export(buffer, format="application/vnd.apache.arrow.file")
        (row,) = pa.ipc.open_file(buffer.getvalue()).read_pandas().to_dict("records")
    published = (json.loads(line) for line in (tmp_path / "out" / "documents.jsonl").read_text().splitlines())
    (event,) = (doc for name, doc in published if name == "event" and "OS" in doc["data"])
    read = {key: row[key] for key in event["data"]}
    assert {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in read.items()} == event["data"]


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("tiled.client", reason="pip install 'xas-agent[tiled]'")

    def refused(*_: object, **__: object) -> None:  # the client leaves its socket open then
        raise RuntimeError("This server requires API key authentication. Set an api_key as in: …")

    monkeypatch.delenv("TILED_API_KEY", raising=False)
    monkeypatch.setattr(client, "from_uri", refused)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        uri = f"tiled://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(EndpointUnreachable, match="set the environment variable TILED_API_KEY"):
            TiledSource(TiledEndpoint(uri=uri)).connect()


@pytest.mark.slow
def test_a_past_run_is_marked_and_a_run_in_progress_has_its_age(catalogue: Any) -> None:
    client, endpoint, folder = catalogue
    over, going = shapes.sst1(folder).documents, shapes.sst1(folder).documents
    newest = max(doc["time"] for _, doc in going if "time" in doc)
    for _, doc in over + going:
        if "time" in doc:
            doc["time"] += time.time() - 3600 - newest
    write(client, over)
    write(client, going[:-1], 1)
    source = TiledSource(endpoint)
    ages = [(name, source.age_s) for name, _ in source]
    first = [name for name, _ in ages].index("stop") + 1
    assert {age for _, age in ages[:first]} == {REPLAYED_S}
    assert [age for name, age in ages[first:] if name == "event" and not 3600 <= age < 86400] == []
    assert "event" in dict(ages[first:])


def test_nobody_there_is_reported() -> None:
    pytest.importorskip("bluesky_tiled_plugins", reason="pip install 'xas-agent[tiled]'")
    endpoint = TiledEndpoint(uri="tiled://127.0.0.1:9", connect_timeout_s=0.01)
    with pytest.raises(EndpointUnreachable, match=r"tiled://127\.0\.0\.1:9: nothing answered within 0\.01 s"):
        TiledSource(endpoint).connect()


@pytest.mark.parametrize("uri", ["zmq://a:1", "nonsense", "tiled://"])
def test_what_is_no_catalogue_is_refused(uri: str) -> None:
    with pytest.raises(ValidationError):
        TiledEndpoint(uri=uri)


def test_the_command_line_tells_a_catalogue_from_a_proxy() -> None:
    settings = settings_of(None, source="tiled://here:8000/bmm", connect_timeout=3.0)
    assert settings.source is None
    assert (settings.tiled.uri, settings.tiled.connect_timeout_s) == ("tiled://here:8000/bmm", 3.0)
    assert settings_of(None, source="https://here/api/v1/metadata/bmm").tiled.uri.startswith("https")
    assert settings_of(None, source="zmq://here:5578").tiled is None
    with pytest.raises(ConfigError, match="tiled without past and follow, which have no effect beside source"):
        load_config({"source": {"address": "zmq://a:1"}, "tiled": {"uri": "tiled://a:1", "past": 1}})


@pytest.mark.slow
def test_a_catalogue_is_inspected(catalogue: Any, tmp_path: Path) -> None:
    client, endpoint, folder = catalogue
    write(client, shapes.haven_step(folder).documents)
    latest = shapes.sst1(folder).documents
    latest[0][1]["time"] = 4e9
    write(client, latest)
    shown = run_command("inspect", endpoint.uri, "--preset", "sst1", "--out", tmp_path / "out.yaml").stdout
    assert "1 run, " in shown
    assert "en_energy: named in the config" in shown
    config = load_config(tmp_path / "out.yaml")
    assert config.tiled is not None
    assert config.tiled.model_dump(exclude_unset=True) == {"uri": endpoint.uri}


@pytest.mark.slow
def test_a_source_goes_on_with_runs_in_progress_and_those_that_ended_meanwhile(catalogue: Any) -> None:
    client, endpoint, _ = catalogue
    endpoint = endpoint.model_copy(update={"past": 0, "follow": True, "poll_s": 0.05})

    def begin(at: float) -> tuple[Any, Any, Any]:
        run = event_model.compose_run(time=at)
        keys = {"mu": {"source": "x", "dtype": "number", "shape": []}}
        stream = run.compose_descriptor(name="primary", data_keys=keys, configuration={}, object_keys={"x": ["mu"]})
        return run, stream, write(client, [("start", run.start_doc), ("descriptor", stream.descriptor_doc)], 1)

    def add(run: tuple[Any, Any, Any], *values: float) -> None:
        for value in values:
            run[2]("event", dict(run[1].compose_event(data={"mu": value}, timestamps={"mu": value})))

    def read(source: TiledSource, position: dict[str, Any], until: Callable[[list[Any]], bool]) -> list[Any]:
        documents = []
        for document in source:
            documents.append(document)
            position |= source.position
            if until(documents):
                source.close()
        return documents

    def events(documents: list[Any]) -> set[int]:
        return {doc["seq_num"] for name, doc in documents if name == "event"}

    long, position = begin(1000.0), {}
    add(long, 1.0, 2.0)
    first = read(TiledSource(endpoint), position, lambda found: len(events(found)) == 2)
    short = begin(2000.0)
    add(short, 5.0)
    short[2]("stop", short[0].compose_stop())
    add(long, 3.0)
    source = TiledSource(endpoint)
    source.connect()
    source.resume({uid: state for uid, state in json.loads(json.dumps(position)).items() if state is not None})

    def both(found: list[Any]) -> bool:
        return {d["uid"] for n, d in found if n == "start"} == {r[0].start_doc["uid"] for r in (long, short)} and (
            sum(name == "stop" for name, _ in found) == 1 and 3 in events(found)
        )

    second = read(source, position, both)
    assert events(first) == {1, 2}
    assert events([d for d in second if d[1].get("descriptor") == long[1].descriptor_doc["uid"]]) >= {3}
