"""A bluesky-queueserver as processes, ``start-re-manager`` and ``redis-server``, with plans and a device."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_until

from xas_agent.adapters.queueserver import QueueServerSettings

STARTUP = '''
import json
from pathlib import Path

from bluesky import RunEngine
from bluesky.plan_stubs import checkpoint, clear_checkpoint, sleep
from bluesky.plans import count
from bluesky.preprocessors import run_decorator
from ophyd.sim import SynAxis

RE = RunEngine({})
axis = SynAxis(name="axis")


def record(name, doc):
    with Path("@FOLDER@/runs.jsonl").open("a") as file:
        file.write(json.dumps([name, doc]) + "\\n")


RE.subscribe(record, "start")
RE.subscribe(record, "stop")
RE.state_hook = lambda new, old: record("state", [str(old), str(new)])


def measure(detectors, num: int = 1):
    """A plan that ends by itself."""
    yield from count(detectors, num)


@run_decorator()
def hold(name: str, checkpoints: bool = True):
    """A plan that goes on until there is a file of this name."""
    yield from checkpoint()
    if not checkpoints:
        yield from clear_checkpoint()
    while not (Path("@FOLDER@") / name).exists():
        if checkpoints:
            yield from checkpoint()
        yield from sleep(0.02)


def fail():
    """A plan that fails."""
    yield from checkpoint()
    raise ValueError("as asked")
'''
PERMISSIONS = """
user_groups:
  root: {allowed_plans: [null], allowed_devices: [null]}
  primary: {allowed_plans: [":.*"], allowed_devices: [":?.*:depth=1"]}
  agent: {allowed_plans: ["measure"], allowed_devices: [":?.*:depth=1"]}
"""


class QueueServer:
    """Start, kill and ask the processes; the folder holds their sockets, files and logs."""

    def __init__(self, folder: Path, private_key: str | None = None, more: str = "") -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("no redis-server: apt-get install redis-server")
        pytest.importorskip("bluesky_queueserver_api", reason="pip install bluesky-queueserver-api")
        self.folder = folder
        self.address = f"ipc://{folder}/manager"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._env = {**os.environ, "QSERVER_ZMQ_PRIVATE_KEY_FOR_SERVER": private_key or ""}
        startup = folder / "startup"
        startup.mkdir()
        (startup / "startup.py").write_text(STARTUP.replace("@FOLDER@", str(folder)), encoding="utf-8")
        (startup / "startup_more.py").write_text(more, encoding="utf-8")
        (startup / "user_group_permissions.yaml").write_text(PERMISSIONS, encoding="utf-8")
        self.redis_port = 0

    def start_redis(self) -> None:
        def listening() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.redis_port)) == 0

        while not self._alive("redis"):  # another process may take the free port first
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.redis_port = free.getsockname()[1]
            options = ["--port", self.redis_port, "--bind", "127.0.0.1", "--save", "", "--dir", self.folder]
            self._start("redis", "redis-server", *options)
            wait_until(lambda: not self._alive("redis") or listening())

    def start_manager(self) -> None:
        """Start the manager; it listens a few seconds later."""
        self._start(
            "manager", Path(sys.executable).with_name("start-re-manager"),
            "--startup-dir", self.folder / "startup", "--redis-addr", f"127.0.0.1:{self.redis_port}",
            "--zmq-control-addr", self.address, "--zmq-info-addr", f"ipc://{self.folder}/info",
        )  # fmt: skip

    def kill(self, *, redis: bool = False) -> None:
        """End all processes of the manager, or of Redis, with SIGKILL."""
        process = self._processes.pop("redis" if redis else "manager")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in self._processes.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self) -> str:
        return (self.folder / "manager.log").read_text(encoding="utf-8")

    def seen(self, name: str) -> list[Any]:
        """What the RunEngine has recorded: all RunStarts (``start``), RunStops, or changes of its ``state``."""
        path = self.folder / "runs.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [doc for kind, doc in map(json.loads, lines) if kind == name]

    def release(self, name: str) -> None:
        """Let a plan ``hold`` go on."""
        (self.folder / name).touch()

    def settings(self, **changes: Any) -> QueueServerSettings:
        return QueueServerSettings(**{"address": self.address, "lease": self.folder / "lease", **changes})

    def _start(self, name: str, *command: object) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*map(str, command)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder,
                start_new_session=True, env=self._env,
            )  # fmt: skip

    def _alive(self, name: str) -> bool:
        return name in self._processes and self._processes[name].poll() is None


@contextmanager
def serving(private_key: str | None = None, more: str = "") -> Iterator[QueueServer]:
    """Run a manager and Redis, with more code in its environment; the manager listens when it is ready."""
    # Not pytest's folder: the path of a Unix socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="qs") as folder:
        server = QueueServer(Path(folder), private_key, more)
        try:
            server.start_redis()
            server.start_manager()
            yield server
        finally:
            server.close()


@contextmanager
def client(server: QueueServer, public_key: str | None = None) -> Iterator[Any]:
    """The queue server's own client, as a user has it, once the manager answers."""
    from bluesky_queueserver_api.zmq import REManagerAPI

    api = REManagerAPI(
        zmq_control_addr=server.address, zmq_public_key=public_key, timeout_recv=5.0, status_polling_period=0.05,
        status_expiration_period=0.0, request_fail_exceptions=True,
    )  # fmt: skip

    def answers() -> bool:
        try:
            return bool(api.ping())
        except api.RequestTimeoutError:
            return False

    try:
        wait_until(answers)
        yield api
    finally:
        api.close()
        # The client leaves its contexts to the garbage collector.
        monitors = (monitor._rco._socket.context for monitor in (api.console_monitor, api.system_info_monitor))
        for context in (api._client._ctx, *monitors):
            context.destroy(linger=0)
