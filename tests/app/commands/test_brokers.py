"""Brokers on the command line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from event_model import compose_run
from forked import run_command
from logs import capture_logs
from nats_server import Server

from xas_agent.adapters.nats import NATSShared
from xas_agent.adapters.nats.endpoint import Link
from xas_agent.adapters.nats.leases import Leases
from xas_agent.agent.types import Received
from xas_agent.app.commands.shared import settings_of
from xas_agent.app.config import ConfigError, load_config
from xas_agent.app.wiring import frame_reader


def test_addresses_of_brokers_select_them() -> None:
    settings = settings_of(None, source="nats://here/docs", publish="kafka://here:9092/answers", connect_timeout=3.0)
    assert settings.nats.address == "nats://here/docs"
    assert settings.nats.connect_timeout_s == 3.0
    assert settings.publish.kafka.address == "kafka://here:9092/answers"
    assert settings.publish.kafka.connect_timeout_s == 3.0
    assert settings.source is settings.tiled is settings.kafka is None


def test_an_address_takes_the_place_of_the_configs_source() -> None:
    config = load_config({"kafka": {"address": "kafka://a:1/b", "group": "xanes"}})
    assert settings_of(config.model_dump(exclude_unset=True), source="nats://here").kafka is None
    kept = settings_of(config.model_dump(exclude_unset=True), source="kafka://c:1/d").kafka
    assert (kept.address, kept.group) == ("kafka://c:1/d", "xanes")


def test_a_session_has_one_source() -> None:
    with pytest.raises(ConfigError, match="found source and nats, expected one of them"):
        load_config({"source": {"address": "zmq://a:1"}, "nats": {"address": "nats://a"}})


def test_a_broker_needs_a_journal(tmp_path) -> None:
    said = run_command("run", "--source", "nats://127.0.0.1:1/docs", code=2).stderr
    assert "needs --out" in said
    config = tmp_path / "config.yaml"
    config.write_text("journal: {durability: 'off'}\n")
    out = tmp_path / "out"
    said = run_command("run", "--config", config, "--source", "kafka://127.0.0.1:1/docs", "--out", out, code=2).stderr
    assert "journal.durability" in said


def test_a_broker_that_does_not_answer_is_unreachable(tmp_path) -> None:
    pytest.importorskip("nats", reason="no nats-py: pip install 'xas-agent[nats]'")
    line = ("run", "--source", "nats://127.0.0.1:1/docs", "--connect-timeout", "0.2", "--out", tmp_path / "out")
    assert "no NATS server answered" in run_command(*line, code=3).stderr


def test_inspect_leaves_a_groups_documents_alone() -> None:
    assert "inspect reads no broker" in run_command("inspect", "nats://127.0.0.1:1/docs", code=2).stderr


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"nats": {"address": "nats://here/docs"}}, "RECORDING"),
        ({"kafka": {"address": "kafka://here:9092/docs"}}, "RECORDING"),
        ({"source": {"address": "zmq://here:5578"}}, "zmq://here:5578"),
    ],
)
def test_the_hint_on_a_stream_that_is_not_read_names_a_source_that_inspect_takes(config, named) -> None:
    reader = frame_reader(load_config(config))
    run = compose_run()
    about = {"dtype": "array", "shape": [9], "source": "x"}
    stream = run.compose_descriptor(name="primary", data_keys={"a": about, "b": about})
    event = stream.compose_event(data={"a": [1.0] * 9, "b": [2.0] * 9}, timestamps={"a": 1.0, "b": 1.0})
    with capture_logs() as logs:
        for name, doc in [("start", run.start_doc), ("descriptor", stream.descriptor_doc), ("event", event)]:
            list(reader(Received(name, dict(doc), 0.0)))
        list(reader.finish())
    assert [line["help"] for line in logs if "help" in line] == [f"xas-agent inspect {named}"]


def test_an_agent_that_is_told_to_stop_while_it_starts_gives_its_partitions_up(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.make_stream("docs", "docs")
    endpoint = NATSShared(address=f"{server.address}/docs")
    line = [sys.executable, "-m", "xas_agent", "run", "--source", endpoint.address, "--out", tmp_path / "out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment) as agent:
        assert agent.stderr is not None
        said = next(line for line in agent.stderr if "partition taken" in line or agent.poll() is not None)
        agent.send_signal(signal.SIGTERM)
        said += agent.stderr.read()
    assert (agent.returncode, "ended by a signal before the session began" in said) == (0, True), said
    link = Link(endpoint)
    leases = Leases(link.jetstream, endpoint.shared_name, "other", 1, endpoint.lease_s)
    link.call(leases.open())
    assert link.call(leases.claim(0))
    link.close()
    server.kill()
