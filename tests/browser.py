"""Debian's Chromium, driven by Playwright, and dashboards to look at."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, Self

import pytest
from forked import command
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: apt-get install chromium")

PHONE, DESKTOP, CONTROL_ROOM = (390, 844), (1440, 900), (2560, 1440)
WAIT_MS = 60_000
expect.set_options(timeout=WAIT_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Looked(NamedTuple):
    """A page, and what went wrong in it."""

    page: Page
    errors: list[str]
    """Messages of errors, among them every breach of the content security policy."""


@contextmanager
def looking(
    browser: Browser,
    address: str,
    size: tuple[int, int] = DESKTOP,
    colours: Literal["light", "dark"] = "light",
) -> Iterator[Looked]:
    """Open an address in a window of its own, without the cookies of others."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=colours, reduced_motion="reduce"
    )
    context.set_default_timeout(WAIT_MS)
    page, errors = context.new_page(), []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield Looked(page, errors)
    context.close()


class Dashboard:
    """``xas-agent view`` in a process of its own.

    Parameters
    ----------
    folders : Path
    host : str
    port : int
        0 selects a free one.
    """

    def __init__(self, *folders: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        line = command("view", *folders, "--bind", f"{host}:{port}")
        self._process = subprocess.Popen(
            line, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "250"}
        )
        assert self._process.stdout
        found = re.search(r"http://\S+", self._process.stdout.readline())
        assert found
        self.with_token = found[0]
        self.address = self.with_token.partition("?")[0]
        self.port = int(self.address.rstrip("/").rpartition(":")[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.communicate(timeout=60)
