"""However a session ends: whole files, right counts, and a folder that nobody overwrites."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import typer
from bluesky import RunEngine
from bluesky.plans import count
from deadline import wait_until
from forked import command, run_command

import xas_agent.app.agent as agent_module
from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSink, ZMQSource
from xas_agent.agent.types import Document, Estimator, InputError
from xas_agent.app.commands.shared import conclude
from xas_agent.app.config import load_config
from xas_agent.app.output.folder import OutputFolder
from xas_agent.app.output.opening import fresh_folder
from xas_agent.app.session import Session
from xas_agent.app.signals import end_like_ctrl_c
from xas_agent.app.wiring import load_models
from xas_agent.models import card as cards
from xas_agent.models.lazy import LazyModel
from xas_agent.sim_beamline.beamline import detectors

CO = {"model": {"use": ["co-k"], "threads": 1}}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def _heed_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored if nohup started the tests


@contextmanager
def watching(out: Path, *begin: str) -> "Iterator[subprocess.Popen[str]]":
    """The embedded beamline and its agent, once frames are in the table."""
    line = [*begin, "run", "--frames", "1000", "--out", str(out)]
    with subprocess.Popen(
        line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=_heed_hangups
    ) as process:
        try:
            wait_until(lambda: len(lines(out / "descriptors.csv")) > 2, 100)
            yield process
        finally:
            process.kill()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


@pytest.mark.slow
@pytest.mark.parametrize("signals", [[signal.SIGHUP], [signal.SIGTERM]])
def test_a_signal_leaves_whole_files(signals: list[int], tmp_path: Path):
    with watching(tmp_path / "out", *command()) as process:
        for number in signals:
            process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    documents = [json.loads(line) for line in lines(tmp_path / "out" / "documents.jsonl")]
    assert documents[-1][0] == "stop"
    assert summary["interrupted"]
    assert len(lines(tmp_path / "out" / "descriptors.csv")) == 1 + summary["frames"]


@pytest.mark.slow
def test_after_a_kill_the_folder_is_kept_and_can_be_rebuilt(tmp_path: Path):
    out = tmp_path / "out"
    with watching(out, sys.executable, "-m", "xas_agent") as process:
        busy = run_command("run", "--frames", 1, "--out", out, code=2).stderr
        beamline = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        process.kill()
        process.communicate()
    os.kill(beamline, signal.SIGKILL)  # nobody else ends it
    assert "in use by another agent" in busy
    before = (out / "documents.jsonl").read_bytes()
    assert "never overwritten" in run_command("run", "--frames", 1, "--out", out, code=2).stderr
    assert (out / "documents.jsonl").read_bytes() == before
    table = lines(out / "descriptors.csv")
    with (out / "documents.jsonl").open("ab") as file:
        file.write(b'["event", {"uid')
    run_command("rebuild", out)
    assert lines(out / "descriptors.csv")[: len(table)] == table
    assert (out / "operando.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("out", ["/proc/sys", "file"])
def test_a_folder_that_cannot_be_written_is_refused(out: str, tmp_path: Path):
    (tmp_path / "file").touch()
    said = run_command("run", "--frames", 1, "--out", tmp_path / out, code=2).stderr
    assert "cannot be used as the output folder" in said


def test_a_default_folder_that_cannot_be_made_is_refused():
    with pytest.raises(InputError, match=r"/proc/sys/.*: cannot be used as the output folder: .*; name another one"):
        fresh_folder(Path("/proc/sys"))


def test_each_default_folder_is_new(tmp_path: Path):
    folders = [fresh_folder(tmp_path / "out") for _ in range(3)]
    assert len(set(folders)) == 3
    for folder in folders:
        OutputFolder(folder).release()
        OutputFolder(folder).release()  # no session began


class Silent:
    """A source without documents, until it is closed."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Document]:
        self._closed.wait()
        return iter(())

    def close(self) -> None:
        self._closed.set()


def test_a_signal_ends_a_session_even_if_its_exception_is_lost():
    def lose() -> bool:
        with suppress(KeyboardInterrupt):  # as Python does in a finaliser
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with Session(load_config(CO), None) as session:
        session.watch(Silent(), lose)
    assert (session.interrupted, session.hurried.is_set()) == (True, False)


@pytest.fixture
def hang_up_is_heard() -> Iterator[None]:
    """Also where ``nohup`` started the tests, whose sessions leave SIGHUP ignored."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, earlier)


@pytest.mark.usefixtures("hang_up_is_heard")
def test_a_signal_that_comes_as_a_session_begins_ends_it_as_any_other(monkeypatch: pytest.MonkeyPatch):
    session = Session(load_config(CO), None)
    start = session.display.start

    def signalled() -> None:
        start()
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(session.display, "start", signalled)
    with session:
        session.watch(Silent())
    assert session.interrupted
    assert not session.hurried.is_set()
    assert session.agent.ended(0)


@pytest.mark.parametrize("until", [lambda: False, lambda: True], ids=["while it runs", "at its end"])
def test_a_network_that_cannot_be_loaded_ends_a_session_with_an_error(until: Callable[[], bool], tmp_path: Path):
    shutil.copytree(cards.find("co-k"), tmp_path / "mine")
    content = b"no network"
    (tmp_path / "mine" / "model.ts").write_bytes(content)
    card = tmp_path / "mine" / "card.yaml"
    card.write_text(re.sub(r"(?m)^sha256: .*$", f"sha256: {sha256(content).hexdigest()}", card.read_text()))
    config = load_config({"model": {"use": [str(tmp_path / "mine")]}})
    with Session(config, None) as session:
        if until():
            [model] = session.agent.models
            assert isinstance(model, LazyModel)
            wait_until(lambda: "cannot load" in model.obstacle)
        with pytest.raises(cards.ModelError, match=r"model\.ts: torch .* cannot load it"):
            session.watch(Silent(), until)


class Stalled:
    """A model whose first estimate waits until it is released."""

    def __init__(self, model: Estimator) -> None:
        self._model = model
        self.reached, self.released = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def estimate(self, *args: Any) -> Any:
        self.reached.set()
        self.released.wait(60)
        return self._model.estimate(*args)


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stalled]:
    """The model of every session."""
    model = Stalled(load_models(load_config(CO))[0])
    monkeypatch.setattr(agent_module, "load_models", lambda _, at_once: [model])
    yield model
    model.released.set()


def test_a_second_signal_ends_at_once_and_says_what_is_missing(
    stalled: Stalled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    times = iter([5.0, 5.15, 5.3])
    with Session(load_config(CO), OutputFolder(out), clock=lambda: next(times)) as session:
        RE = RunEngine({})
        RE.subscribe(session.agent)
        RE(count(detectors(), 3, md={"element": "Co", "edge": "K"}))
        assert stalled.reached.wait(60)
        session.ending()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert (session.interrupted, session.hurried.is_set()) == (True, False)
        signal.raise_signal(signal.SIGTERM)
        assert session.hurried.is_set()
    assert not stalled.released.is_set()  # the end did not wait for the model
    with pytest.raises(typer.Exit) as ended:
        conclude(session, strict=False)
    assert ended.value.exit_code == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"ended by a second signal; not answered: documents [1-9]", said)
    assert f"; not whole in {out}: decisions.csv, descriptors.csv, documents.jsonl; xas-agent rebuild {out} " in said
    stalled.released.set()
    assert session.agent.close(60)


def test_a_signal_that_comes_twice_is_one():
    times = iter([5.0, 5.15, 5.3])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    end_like_ctrl_c(lambda: next(times))
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_status_says_that_the_connection_to_the_beamline_is_lost(own_sockets: None):
    sink = ZMQSink(ZMQEndpoint(address="127.0.0.1:0", bind=True))
    sink.connect()
    said: list[str] = []
    after = ""

    def lost() -> bool:
        said.append(run_command("status").stdout)
        sink.close()
        return "CONNECTION LOST" in said[-1]

    with closing(ZMQSource(ZMQEndpoint(address=sink.address))) as source, Session(load_config(CO), None) as session:
        source.connect()
        session.watch(source, lost)
        after = run_command("status").stdout
    assert "CONNECTION LOST" not in said[0]
    assert "frames     0" in after
    assert "CONNECTION LOST" not in after  # the session has closed it
