"""Hypothesis profiles, a small FEFF data set for training tests, and a reader with a simulated clock."""

import csv
import gc
import itertools
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from forked import run_command, share_one
from hypothesis import is_hypothesis_test, settings

from xas_agent.agent.types.frame import Document, Frame, Received, SetAside
from xas_agent.app.config import load_config
from xas_agent.app.wiring import frame_reader

if TYPE_CHECKING:
    from windowed import Windowed

# Sessions of tests that run beside each other must not find each other's sockets.
_SOCKETS = tempfile.TemporaryDirectory(prefix="xas-")
os.environ["XDG_RUNTIME_DIR"] = _SOCKETS.name

gc.disable()  # until all is imported, of which nothing is garbage

# Test processes share the cores; torch is imported later.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Fixed examples make the result depend on the code only; `make fuzz` draws new ones.
settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("fuzz", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("fixed")

STUDIES = "tests/models/evaluation/studies/"
QUEUE_SERVER = ("tests/adapters/queueserver/",)
UMAP = (f"{STUDIES}test_out_of_distribution.py", "tests/test_oxygen_sites.py")
WINDOWED = (
    f"{STUDIES}test_uncertainty.py",
    "tests/models/evaluation/competitors/test_conditions.py",
    "tests/models/training/test_windows.py",
    "tests/test_short_scans.py",
)
TOGETHER = (QUEUE_SERVER, UMAP, WINDOWED)
"""Files that one worker takes: the queue server takes long to start, UMAP to compile, and ``windowed`` to train."""
ALONE = (
    "tests/test_campaigns.py",
    "tests/test_stories.py",
    "tests/docs/test_blocks.py",
    "tests/test_robot.py",
    "tests/test_benchmarks.py::test_rounds",
    "tests/test_benchmarks.py::test_the_device",
    "tests/test_benchmarks.py::test_cost",
)
"""Tests that mostly wait, and share no fixture, so that any worker may take each of them."""
LONGEST = (
    "tests/app/jobs/test_evaluate.py",
    "tests/test_repository_rows.py",
    *ALONE,
    *UMAP,
    *QUEUE_SERVER,
    STUDIES,
    "tests/docs/test_figures.py",
    "tests/test_secured_loop.py",
    "tests/test_closed_loop.py",
    "tests/app/commands/",
    "tests/adapters/tiled/",
    "tests/models/",
    "tests/app/journal/",
    "tests/app/view/",
    "tests/app/test_",
    "tests/app/jobs/",
    "tests/test_",
)
"""What takes longest comes first, so that no worker is left with it at the end. `make` keeps the order."""

EDGE = 7709.0
POISON = 9
"""A class that occurs only in rows outside the training and validation splits."""


class _RootIsAFolder:
    """Collects the root as a folder: a clone may have any name, and only ``xas_agent`` could be imported."""

    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == parent.config.rootpath else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_RootIsAFolder())
    # A shell's background jobs ignore SIGINT, and the processes that tests interrupt would inherit this.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        share_one()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj):
            item.add_marker(pytest.mark.property)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))
    items.sort(key=lambda item: [not item.nodeid.startswith(start) for start in LONGEST])
    items[:] = alternated(items)


def alternated(items: list[pytest.Item]) -> list[pytest.Item]:
    """Put groups of tests that mostly wait for processes between those that compute, which then have the cores."""
    groups = [[*group] for _, group in itertools.groupby(items, lambda item: scope_of(item.nodeid))]
    waiting = [group for group in groups if group[0].nodeid.startswith(ALONE)]
    computing = [group for group in groups if not group[0].nodeid.startswith(ALONE)]
    pairs = itertools.zip_longest(waiting, computing, fillvalue=[])
    return [item for pair in pairs for group in pair for item in group]


def scope_of(nodeid: str) -> str:
    """Name the group of tests that one worker takes."""
    if nodeid.startswith(ALONE):
        return nodeid
    return next((files[0] for files in TOGETHER if nodeid.startswith(files)), nodeid.split("::", 1)[0])


def pytest_collection_finish() -> None:
    if "event_model" in sys.modules:
        from valid import remember_what_is_valid

        remember_what_is_valid()
    gc.freeze()  # each search for garbage would go through all that was imported
    gc.enable()
    gc.set_threshold(20_000)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() > 1:  # as an earlier test left it
        torch.set_num_threads(1)
    if "xas_agent.models.runtime" in sys.modules:
        from loaded_networks import share_networks

        share_networks()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a worker all tests of a file, for its fixtures, or of several."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def xa() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``xas-agent`` with arguments in a separate process, which must exit with ``code``."""
    return run_command


def write_feff(folder: Path, name: str = "small", copies: int = 1, *, gaps: bool = True) -> Path:
    """Write 30 disturbed cathode spectra of 10 compositions, or copies with other disturbances, in FEFF's form.

    Every third site has no ``OS_mean``; without ``gaps`` it has that of its class.
    """
    rng = np.random.default_rng(0)
    with files("xas_agent.sim_beamline").joinpath("cathode_co_k.npz").open("rb") as f, np.load(f) as z:
        grid, lithium, spectra = z["energy"], z["x"], z["mu"].astype(float)
    ids, energies, mus, rows = [], [], [], []
    for k, x in enumerate(lithium):
        for copy, site in itertools.product(range(copies), range(3)):
            # Energies are uniform in k above the edge, as in FEFF's output, so that steps grow with the energy.
            energy = EDGE - 8 + rng.uniform(-2, 2) + np.linspace(0, np.sqrt(90), 90) ** 2 + np.linspace(0, 5, 90)
            ids.append(f"x{x:.2f}_{site}" if copies == 1 else f"x{x:.2f}_{site}_{copy}")
            energies.append(energy)
            mus.append(np.interp(energy + rng.uniform(-1, 1), grid, spectra[k] * rng.uniform(0.97, 1.03)))
            split = "sim" if k in (3, 6) else "val" if k in (2, 5, 8) else "train"
            poisoned, charge = POISON if split == "sim" else None, 3 if x > 0.5 else 4
            rows.append(
                {
                    "id": ids[-1],
                    "material": f"x{x:.2f}",
                    "split": split,
                    "OS": poisoned or charge,
                    "OS_mean": round(4 - x, 4) if site else "" if gaps else charge,
                    "CN": poisoned or (6 if site else 5),
                    "OCN": 6 - site,
                    "CN2": "" if site == 1 else 6 + 6 * (x > 0.4),
                    "PSGO": (12, 4, 2)[site],
                    "NNRS": round(0.01 * site + 0.02 * x, 4),
                    "MOOD": "" if site == 2 else round(2.5 + 0.1 * x, 4),
                }
            )
    np.savez(folder / f"{name}.npz", id=np.array(ids), energy=np.array(energies), mu=np.array(mus))
    with (folder / f"{name}.csv").open("w", newline="") as f:
        table = csv.DictWriter(f, rows[0])
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.fixture(scope="session")
def feff(tmp_path_factory) -> Path:
    return write_feff(tmp_path_factory.mktemp("feff"))


@pytest.fixture(scope="session")
def windowed(tmp_path_factory) -> "Windowed":
    """A small Co model that answers scans from 27 eV above the tabulated edge on, and the rows that trained it."""
    from windowed import train_windowed  # imports torch, which most tests do without

    folder = tmp_path_factory.mktemp("windowed")
    return train_windowed(write_feff(folder, "many", copies=4, gaps=False), folder)


@pytest.fixture
def networks_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each network from its file, as the agent does."""
    from xas_agent.models.engines import torchscript

    monkeypatch.setattr(torchscript, "_load", getattr(torchscript._load, "__wrapped__", torchscript._load))


class Bench:
    """The reader of a config with a simulated clock, without model or thread."""

    def __init__(self, config: Any = None, **assets: Any) -> None:
        self.settings = load_config(
            {"assets": {"wait_s": 0.5, "roots": [tempfile.gettempdir()], **assets}, **(config or {})}
        )
        self.reader = frame_reader(self.settings)
        self.now = 1000.0
        self.frames: list[Frame] = []
        self.asides: list[SetAside] = []

    @property
    def waiting(self) -> bool:
        return self.reader.waiting

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(aside.reason for aside in self.asides))

    def feed(self, documents: Iterable[Document]) -> "Bench":
        """Feed documents at intervals of a millisecond."""
        for name, doc in documents:
            self.now += 1e-3
            self._sort(self.reader(Received(name, doc, self.now)))
        return self

    def wait(self, seconds: float) -> "Bench":
        """Advance the clock until nothing is held back, or by ``seconds``."""
        until = self.now + seconds
        while self.waiting and self.now < until:
            self.now += 0.05
            self._sort(self.reader.poll(self.now))
        return self

    def end(self) -> "Bench":
        self._sort(self.reader.finish())
        return self

    def _sort(self, outcomes: Iterable[Any]) -> None:
        for item in outcomes:
            if isinstance(item, Frame):
                self.frames.append(item)
            elif isinstance(item, SetAside):
                self.asides.append(item)


@pytest.fixture
def bench() -> type[Bench]:
    return Bench


@pytest.fixture
def own_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the sessions of a test, and of its processes, apart from those of other tests."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
