"""Every command and code block of the README and the docs runs.

The blocks of a page share a folder and a Python namespace. ``<!-- not run: WHY -->`` before a block excludes it;
``<!-- slow -->`` before any block marks its page as slow. A YAML block is a config, and a file if it has a title.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import pytest
import yaml
from forked import run_command

from xas_agent.app.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (?P<mark>slow|not run: .+?) -->\s*$")
LANGUAGES = ("bash", "python", "yaml", "text")
NEEDS = (
    "a beamline",
    "a running session",
    "a cluster",
    "a GPU",
    "FEFF",
    "installs the package",
    "recorded data",
    "hours",
)
"""What a block that is not run may need."""


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    body: str
    mark: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        language, _, rest = found["info"].strip().partition(" ")
        title = re.search(r'title="(.*?)"', rest)
        mark = MARK.search(text[: found.start()])
        indent = len(found["indent"])
        body = "".join(line[indent:] if line.strip() else line for line in found["body"].splitlines(keepends=True))
        line = text.count("\n", 0, found.start()) + 1
        yield Block(language, title[1] if title else "", body, mark["mark"] if mark else "", line)


def parameters() -> Iterator[object]:
    for page in PAGES:
        found = list(blocks(page))
        if any(b.language in ("bash", "python", "yaml") and not b.mark.startswith("not run") for b in found):
            marks = [pytest.mark.slow] if any(b.mark == "slow" for b in found) else []
            yield pytest.param(page, marks=marks, id=str(page.relative_to(ROOT)))


def run_bash(block: Block, folder: Path) -> None:
    """Line by line; the agent's own commands in forked processes, since each would import torch anew."""
    for line in block.body.replace("\\\n", " ").splitlines():
        command = line.partition(" # ")[0].strip()
        if command.startswith("xas-agent ") and not set("|&;$`") & set(command):
            run_agent(command, folder)
        elif command:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True
            )
            assert done.returncode == 0, f"line {block.line}: {done.stdout}{done.stderr}"


def run_agent(command: str, folder: Path) -> None:
    line, _, file = command.partition(" > ")
    words = [sorted(glob(w)) if "*" in w else [w] for w in shlex.split(line)[1:]]
    done = run_command(*(w for group in words for w in group))
    if file:
        (folder / file.strip()).write_text(done.stdout, encoding="utf-8")


def check_yaml(block: Block, folder: Path) -> None:
    load_config(yaml.safe_load(block.body))
    if block.title:
        (folder / block.title).write_text(block.body, encoding="utf-8")


@pytest.mark.parametrize("page", list(parameters()))
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch):
    folder = tmp_path / "page"
    folder.mkdir()
    monkeypatch.chdir(folder)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.mark.startswith("not run"):
            continue
        if block.language == "bash":
            run_bash(block, folder)
        elif block.language == "python":
            exec(compile(block.body, f"{page}:{block.line}", "exec"), namespace)
        elif block.language == "yaml":
            check_yaml(block, folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_block_is_one_that_can_be_run_or_says_why_not(page):
    text = page.read_text(encoding="utf-8")
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}:{block.line}"
        if block.mark.startswith("not run"):
            assert any(need in block.mark for need in NEEDS), block.mark
    outside = FENCE.sub("", text)
    assert not re.findall(r"^ {4,}(?:xas-agent|python|pip|make) .*$", outside, re.MULTILINE)


def test_pages_are_found():
    assert len(PAGES) > 30
    assert sum(b.language == "bash" for page in PAGES for b in blocks(page)) > 20
