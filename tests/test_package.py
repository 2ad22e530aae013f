"""What holds for every module: its examples run, it is light to import, it enters another package by its face."""

import ast
import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import event_model
import numpy as np
import pytest
import yaml

import xas_agent
from xas_agent.agent.types import DOCUMENT_NAMES

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("agent", "adapters", "app", "configs", "models", "plans", "sim_beamline", "wording")
SOURCES = sorted(ROOT.glob("[_c]*.py")) + sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["xas_agent", *(parts[:-1] if parts[-1] == "__init__" else parts)])


FACES = {module_name(p) for p in SOURCES if p.name == "__init__.py" and "__all__" in p.read_text(encoding="utf-8")}
EXAMPLES = [module_name(p) for p in SOURCES if ">>> " in p.read_text(encoding="utf-8")]


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports from, by their full names."""
    package = [*module_name(path).split("."), *(["_"] if path.name == "__init__.py" else [])]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield ".".join([*package[: -node.level], *([node.module] if node.module else [])])


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_docstrings(name):
    if ".models." in name:
        pytest.importorskip("sklearn")
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert result.failed == 0


def test_a_package_is_entered_by_its_face():
    """``__init__`` names what others may use; the other modules are private to the package."""
    faces = FACES - {"xas_agent"}
    trespasses = [
        f"{module_name(path)} imports {target}"
        for path in SOURCES
        for target in imported(path)
        if (face := target.rpartition(".")[0]) in faces and not f"{module_name(path)}.".startswith(f"{face}.")
    ]
    assert not trespasses


def test_only_the_entry_points_lie_in_the_root():
    assert {p.name for p in ROOT.glob("*.py")} == {"__init__.py", "__main__.py", "_version.py", "cli.py"}


def test_every_package_is_in_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {module_name(path) for path in SOURCES if path.name == "__init__.py"}
    assert set(settings["packages"]) == packages
    assert {module_name(path).rpartition(".")[0] for path in SOURCES} - {""} <= packages


def test_the_version_is_that_of_changelog_and_citation():
    released = re.search(r"^## \[(\d.*)\] - (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert released is not None
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (xas_agent.__version__, citation["version"]) == (released[1], released[1])
    assert str(citation["date-released"]) == released[2]


@pytest.mark.parametrize("name", ["xas_agent", "xas_agent.cli"])
def test_importing_it_does_not_import_what_is_heavy(name):
    heavy = ("torch", "bluesky", "ophyd", "matplotlib", "pandas", "xarray", "anywidget")
    code = f"import sys, {name}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["xas_agent.app.jobs.infer", "xas_agent.app.session", "xas_agent.app.notebook"])
def test_work_does_not_wait_for_the_schemas_of_event_model(name):
    code = f"import sys, {name}; print([m for m in ('event_model', 'jsonschema', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_estimating_a_spectrum_in_a_file_does_not_import_what_it_does_not_need(tmp_path):
    energy = np.arange(7600.0, 8000.0)
    spectrum = np.column_stack([energy, 0.5 + np.arctan((energy - 7720) / 2) / np.pi])
    np.savetxt(tmp_path / "scan.dat", spectrum, header="energy mu")
    code = """
import sys
from xas_agent.cli import app
try:
    app(["infer", sys.argv[1], "--element", "Co", "--format", "csv"])
finally:
    heavy = ("scipy", "sympy", "pandas", "xraydb", "h5py", "xas_agent.app.session", "xas_agent.app.embedded")
    print([module for module in heavy if module in sys.modules])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "scan.dat")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row, imported = done.stdout.splitlines()[-2:]
    assert (row.split(",")[4:6], imported) == (["Co", ""], "[]")


def test_the_names_of_documents_are_those_of_event_model():
    assert set(event_model.DocumentNames.__members__) == DOCUMENT_NAMES


@pytest.mark.parametrize("command", ["status", "pending", "approve", "resume", "halt"])
def test_a_command_of_a_person_imports_nothing_heavy(command, tmp_path):
    """It must not wait when it stops an experiment."""
    code = """
import json, socket, sys, threading
from xas_agent.app.ask import sockets_folder
from xas_agent.cli import app
answer = {"ok": False, "session": {"pid": "1"}, "error": "as a test"}
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(sockets_folder() / "1.sock"))
listener.listen()
def serve():
    for _ in range(2):  # who it is, and the command
        link, _ = listener.accept()
        link.makefile("rb").readline()
        link.sendall(json.dumps(answer).encode() + b"\\n")
        link.close()
threading.Thread(target=serve, daemon=True).start()
try:
    app(sys.argv[1:])
finally:
    heavy = ("numpy", "scipy", "torch", "zmq", "event_model", "xas_agent.agent", "xas_agent.adapters")
    print([module for module in heavy if module in sys.modules])
"""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, env=environment)
    assert done.stderr.strip() == "xas-agent: session 1: as a test"
    assert done.stdout.strip() == "[]"


def test_a_config_imports_no_server_and_no_screen():
    code = """
import logging, sys
from xas_agent.app.commands.process import log_from
from xas_agent.app.config import load_config
load_config("default")
log_from("info")
logging.getLogger("xas_agent").info("model")
print([module for module in ("rich", "pygments", "structlog", "wsgiref", "scipy", "torch") if module in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[info     \] model *", done.stderr.rstrip("\n"))


def test_an_unknown_name_is_no_attribute():
    module = importlib.import_module("xas_agent")
    with pytest.raises(AttributeError, match="no_such"):
        _ = module.no_such


@pytest.mark.slow
def test_a_clone_may_have_any_name(tmp_path):
    """``git clone`` names the folder ``xas-agent``, which is no Python name."""
    clone, tests = (
        tmp_path / "xas-agent",
        ("conftest.py", "forked.py", "loaded_python.py", "agent/types/test_robust.py"),
    )
    for source in [*ROOT.glob("*.py"), ROOT / "pyproject.toml", *(ROOT / "tests" / name for name in tests)]:
        target = clone / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
