"""The agent in a host program: it changes nothing of the process, prints nothing, and logs where the host says."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from xas_agent import XASAgent, load_config
from xas_agent.adapters.files import FileSink
from xas_agent.agent.types import get_logger
from xas_agent.app.subscribers import Subscribers
from xas_agent.app.wiring import load_models
from xas_agent.sim_beamline.beamline import SimBeamline
from xas_agent.sim_beamline.settings import BeamlineSettings

CO: dict[str, Any] = {"model": {"use": ["co-k"], "threads": 1}}
FRAMES = 3

HOST = """
import json, logging, os, signal, sys
import numpy, torch

def state():
    return {
        "environment": dict(os.environ),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": [torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic],
        "dtype": str(torch.get_default_dtype()),
        "seed": torch.initial_seed(),
        "root logger": [repr(h) for h in logging.getLogger().handlers] + [logging.getLogger().level],
        "signals": [repr(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "numpy": numpy.geterr(),
        "hook": repr(sys.excepthook),
        "streams": [repr(sys.stdout), repr(sys.stderr)],
    }

torch.set_num_threads(3)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
before = state()

from xas_agent import XASAgent
from xas_agent.adapters.files import FileSource

answered = []
def broken(name, doc):
    answered.append(name)
    raise RuntimeError("the host's own mistake")

with XASAgent.from_config({"model": {"use": ["co-k"], "threads": 1}}) as agent:
    agent.subscribe(broken)
    for name, doc in FileSource(sys.argv[1]):
        agent(name, doc)
    agent("event", {"not": "an event"})
    agent.wait()
after = state()
changed = {key: [before[key], after[key]] for key in before if before[key] != after[key]}
with open(sys.argv[2], "w") as f:
    json.dump({"changed": changed, "events": answered.count("event")}, f)
"""


@cache
def models() -> Any:
    return load_models(load_config(CO))


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "run.jsonl"
    sink = FileSink(path)
    SimBeamline(BeamlineSettings(frame_period_s=0, frames=FRAMES), [sink]).run()
    sink.close()
    return path


def test_a_host_program_is_left_as_it_was(recording, tmp_path):
    command = [sys.executable, "-c", HOST, str(recording), str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["changed"] == {}
    assert found["events"] >= FRAMES
    assert (done.stdout, done.stderr) == ("", "")


# ------------------------------------------------------------------ log


def test_the_host_decides_where_the_log_goes(caplog):
    caplog.set_level(logging.INFO, "xas_agent")
    get_logger().info("set aside", reason="glitch", points=3)
    get_logger().debug("not asked for")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("xas_agent", "INFO")
    assert record.getMessage() == "set aside reason='glitch' points=3"
    assert (record.event, record.context) == ("set aside", {"reason": "glitch", "points": 3})
    assert record.funcName == "test_the_host_decides_where_the_log_goes"


def test_an_exception_is_logged_with_its_traceback(caplog):
    try:
        raise KeyError("mu")
    except KeyError:
        get_logger().exception("not served", name="event")
    assert caplog.records[0].levelname == "ERROR"
    assert "KeyError: 'mu'" in caplog.text


class _FullDisk(logging.Handler):
    """A host's handler that cannot write."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError(28, "No space left on device")


class _Odd:
    def __repr__(self) -> str:
        raise ValueError("no text")


@pytest.fixture
def full_disk() -> Iterator[None]:
    logger, handler = logging.getLogger("xas_agent"), _FullDisk()
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.mark.usefixtures("full_disk")
def test_a_log_line_that_cannot_be_written_costs_no_frame(recording):
    from xas_agent.adapters.files import FileSource

    answered: list[str] = []

    def broken(name: str, doc: dict[str, Any]) -> None:
        raise RuntimeError("reader broke")

    with XASAgent(load_config(CO), models()) as agent:
        agent.subscribe(broken)
        agent.subscribe(lambda name, doc: answered.append(name))
        for name, doc in FileSource(recording):
            agent(name, doc)
            agent("event", {"not": "an event"})
        assert agent.wait(60)
        assert not agent.ended(0)
    assert answered.count("event") >= FRAMES
    assert answered.count("start") == answered.count("stop")


def test_a_value_without_a_text_costs_its_own_line_only(caplog):
    get_logger().warning("odd", value=_Odd())
    get_logger().warning("next")
    assert [record.event for record in caplog.records] == ["next"]


# ------------------------------------------------------------------ threads


def test_waiting_reads_nothing_of_what_the_agents_thread_changes(recording):
    """Iterating over documents that the agent's thread adds and removes would raise."""
    read: set[str] = set()

    def note(frame: FrameType, event: str, arg: object) -> None:
        read.add(frame.f_globals["__name__"])

    with XASAgent(load_config(CO), models()) as agent:
        before = sys.gettrace()
        sys.settrace(note)
        try:
            agent.wait(60)
        finally:
            sys.settrace(before)
    assert "xas_agent.app.agent" in read
    assert not {name for name in read if name.startswith("xas_agent.agent.")}


def test_waiting_ends_when_what_was_taken_is_served(recording):
    from xas_agent.adapters.files import FileSource

    answered: list[str] = []
    with XASAgent(load_config(CO), models()) as agent:
        agent.subscribe(lambda name, doc: answered.append(name))
        for name, doc in FileSource(recording):
            agent(name, doc)
        assert agent.wait(60)
        assert answered[-1] == "stop"


def interleaved(code: Any, first: Any, second: Any) -> list[Any]:
    """Results of ``first`` here and of ``second`` on other threads, begun before each instruction of ``code``."""
    results, threads = [], []

    def step(frame: FrameType, event: str, arg: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode":
            threads.append(threading.Thread(target=lambda: results.append(second())))
            threads[-1].start()
            threads[-1].join(0.02)  # goes on without it where a lock keeps it waiting
        return step

    before = sys.gettrace()
    sys.settrace(lambda frame, event, arg: step(frame, event, arg) if frame.f_code is code else None)
    try:
        results.append(first())
    finally:
        sys.settrace(before)
    for thread in threads:
        thread.join()
    return results


def test_every_subscriber_has_a_token_of_its_own():
    with XASAgent(load_config(CO), models()) as agent:

        def subscribe() -> int:
            return agent.subscribe(lambda name, doc: None)

        tokens = interleaved(Subscribers.add.__code__, subscribe, subscribe)
        assert len(tokens) > 2
        assert len(set(tokens)) == len(tokens)
        assert set(agent._subscribers._subscribers) == set(tokens)


def test_who_leaves_while_another_comes_is_gone():
    with XASAgent(load_config(CO), models()) as agent:
        token = agent.subscribe(lambda name, doc: None)

        def subscribe() -> int:
            return agent.subscribe(lambda name, doc: None)

        tokens = interleaved(Subscribers.remove.__code__, lambda: agent.unsubscribe(token), subscribe)
        assert set(agent._subscribers._subscribers) == {t for t in tokens if t is not None}
