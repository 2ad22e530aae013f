"""What a session's health endpoint says of its agent."""

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from damaged_documents import cobalt_points
from deadline import wait_until
from forked import command, run_command
from full_disk import full_disk
from made_runs import Made
from prometheus_client.parser import text_string_to_metric_families

import xas_agent.app.health as module
from xas_agent import XASAgent, load_config
from xas_agent.adapters.health_settings import HealthSettings
from xas_agent.app.commands.shared import settings_of
from xas_agent.app.health import Health
from xas_agent.app.output.folder import OutputFolder
from xas_agent.app.output.recorder import Recorder
from xas_agent.models import card as cards
from xas_agent.models.lazy import LazyModel

CONFIG = {"model": {"use": ["co-k"], "threads": 1}}


@pytest.fixture
def health() -> Iterator[Health]:
    health = Health(HealthSettings(address="127.0.0.1:0"))
    yield health
    health.close()


@pytest.fixture
def agent() -> Iterator[XASAgent]:
    with XASAgent.from_config(CONFIG) as agent:
        agent.load_models()
        yield agent


@dataclass(frozen=True)
class Session:
    """A session in another process."""

    url: str


def get(health: Health | Session, path: str) -> tuple[int, str]:
    try:
        with urlopen(health.url + path, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(health: Health | Session) -> dict[str, float]:
    """Return each sample by its name and, after that, the values of its labels."""
    families = text_string_to_metric_families(get(health, "/metrics")[1])
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for f in families for sample in f.samples}


def test_ready_when_models_are_loaded_and_the_source_is_connected(health: Health, agent: XASAgent) -> None:
    assert get(health, "/healthz") == (200, "ok\n")
    assert get(health, "/readyz") == (503, "the models are not loaded\n")
    health.watch(agent, Recorder(), None)
    assert get(health, "/readyz") == (503, "the source is not connected, or has ended\n")
    health.watch_source(lambda: True)
    assert get(health, "/readyz") == (200, "ok\n")
    agent.close()
    assert get(health, "/readyz") == (503, "the agent is ending\n")
    assert get(health, "/healthz") == (200, "ok\n"), "an end that was asked for is no illness"


def test_not_ready_while_a_model_is_not_loaded_or_cannot_be(health: Health, tmp_path: Path) -> None:
    shutil.copytree(cards.find("co-k"), tmp_path / "mine")
    models = [LazyModel(tmp_path / "mine")]
    with XASAgent(load_config(CONFIG), models) as agent:
        health.watch(agent, Recorder(), None)
        health.watch_source(lambda: True)
        assert get(health, "/readyz") == (503, "co-k is not loaded yet\n")
        (tmp_path / "mine" / "model.ts").write_bytes(b"")
        with pytest.raises(cards.ModelError):
            models[0].load()
        assert "does not match its card" in get(health, "/readyz")[1]


def test_a_thread_without_progress_is_not_ready(
    health: Health, agent: XASAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked, free = threading.Event(), threading.Event()

    def plan(waiting: int) -> int:
        blocked.set()
        free.wait()
        return 1

    monkeypatch.setattr(module, "STUCK_S", 0.01)
    health.watch(agent, Recorder(), None)
    health.watch_source(lambda: True)
    monkeypatch.setattr(agent._pipeline, "plan", plan)
    blocked.wait()
    wait_until(lambda: "no progress for" in get(health, "/readyz")[1])
    assert metrics(health)["xas_agent_ready"] == 0
    free.set()


def test_metrics_count_what_the_agent_did(health: Health, agent: XASAgent) -> None:
    recorder = Recorder()
    agent.subscribe(recorder)
    health.watch(agent, recorder, None)
    health.watch_source(lambda: True)
    before = metrics(health)
    assert "xas_agent_document_age_seconds" not in before, "no document came yet"
    assert before["xas_agent_frames_answered_total"] == 0
    made = Made(element="Co")
    for k in range(3):
        made.event("primary", True, *cobalt_points(), 100.0 + k)
    energy, it = cobalt_points()
    made.event("primary", True, energy[:1], it[:1], 104.0)
    for name, doc in made.stop().docs:
        agent(name, doc)
    assert agent.wait(60)
    after = metrics(health)
    assert after["xas_agent_frames_answered_total"] == 3 == recorder.frames
    for reason, count in recorder.set_aside.items():
        assert after[f"xas_agent_frames_set_aside_total {reason}"] == count
    assert recorder.set_aside
    assert after["xas_agent_latency_seconds_count"] == 3 == after["xas_agent_latency_seconds_bucket +Inf"]
    assert after["xas_agent_latency_seconds_sum"] > 0
    assert after["xas_agent_document_age_seconds"] >= 0
    assert after["xas_agent_queue_documents inbox"] == 0 == after["xas_agent_queue_bytes inbox"]
    assert after["xas_agent_documents_lost_total Recorder"] == 0
    assert after["xas_agent_ready"] == 1


def test_the_documentation_lists_the_metrics(health: Health, agent: XASAgent, tmp_path: Path) -> None:
    output = OutputFolder(tmp_path / "out")
    made = Made(element="Co").stop()
    health.watch(agent, output.recorder, output)
    for name, doc in made.docs:
        agent(name, doc)
    assert agent.wait(60)
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "health.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(xas_agent_\w+)", page, re.MULTILINE))
    names = {line.split()[2] for line in get(health, "/metrics")[1].splitlines() if line.startswith("# TYPE")}
    assert documented == names
    output.release()


def test_what_the_disk_does_not_take_is_shown(health: Health, agent: XASAgent, tmp_path: Path) -> None:
    output = OutputFolder(tmp_path)
    health.watch(agent, output.recorder, output)
    with full_disk(10):
        for _ in range(3):
            output.documents("start", {"uid": "r"})
        assert metrics(health)["xas_agent_not_written documents"] == 3
    output.documents.flush()
    assert metrics(health)["xas_agent_not_written documents"] == 0
    output.release()


def test_queues_and_losses_of_each_subscriber_are_shown(health: Health) -> None:
    free = threading.Event()

    def slow(name: str, doc: dict) -> None:
        free.wait()

    with XASAgent.from_config({**CONFIG, "serving": {"subscriber_queue": 2}}) as agent:
        agent.subscribe(slow)
        agent.subscribe(slow)
        health.watch(agent, Recorder(), None)
        made = Made(element="Co")
        for k in range(8):
            made.event("primary", True, *cobalt_points(), 100.0 + k)
        for name, doc in made.docs:
            agent(name, doc)
        names = [f"{slow.__qualname__} {token}" for token in (1, 2)]
        wait_until(lambda: all(metrics(health)[f"xas_agent_documents_lost_total {name}"] > 0 for name in names))
        found = metrics(health)
        assert all(found[f"xas_agent_queue_documents {name}"] >= 2 for name in names)
        assert all(found[f"xas_agent_queue_bytes {name}"] > 0 for name in names)
        free.set()


def test_a_command_refuses_an_address_that_it_cannot_use(tmp_path: Path) -> None:
    recording = tmp_path / "run.jsonl"
    recording.write_text("")
    said = run_command("replay", recording, "--health", "0.0.0.0:9464", code=2).stderr
    assert "other machines reach; expected 127.0.0.1:9464, or allow_remote: true (--health-remote)" in said
    said = run_command("run", "--health-remote", code=2).stderr
    assert said == "xas-agent: --health-remote: no effect without --health, or health in the config\n"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = run_command("run", "--health", address, "--out", tmp_path / "out", code=3).stderr
    assert said.count("\n") == 1
    assert "is in use: name another one with --health, or 0 for a free one" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "health", "remote", "expected"),
    [
        ("{address: '127.0.0.1:1', allow_remote: true}", "0.0.0.0:2", False, ("0.0.0.0:2", True)),
        ("'127.0.0.1:1'", "127.0.0.1:2", False, ("127.0.0.1:2", False)),
        ("'0.0.0.0:1'", None, True, ("0.0.0.0:1", True)),
        ("{address: '0.0.0.0:1', allow_remote: false}", None, True, ("0.0.0.0:1", True)),
        ("null", "0.0.0.0:2", True, ("0.0.0.0:2", True)),
    ],
)
def test_options_complete_the_group_of_the_config(
    config: str, health: str | None, remote: bool, expected: tuple[str, bool], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(f"health: {config}\n")
    settings = settings_of(str(tmp_path / "mine.yaml"), health=health, health_remote=remote).health
    assert (settings.address, settings.allow_remote) == expected


@pytest.mark.slow
def test_a_session_is_ready_while_it_answers_frames(tmp_path: Path) -> None:
    line = command("run", "--out", tmp_path / "out", "--health", "127.0.0.1:0")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            url = next(word for said in process.stderr for word in said.split("=") if word.startswith("http://"))
            session = Session(url.split()[0])
            wait_until(lambda: metrics(session).get("xas_agent_frames_answered_total", 0) > 2, 200)
            assert get(session, "/readyz") == (200, "ok\n")
            assert get(session, "/healthz") == (200, "ok\n")
            found = metrics(session)
            assert found["xas_agent_documents_lost_total DocumentFile"] == 0
            assert found["xas_agent_not_written documents"] == 0 == found["xas_agent_not_written rows"]
            process.terminate()
            process.communicate(timeout=100)
        finally:
            process.kill()
    assert process.returncode == 0
