"""MkDocs' hooks: find the package and fill in what is generated from the code."""

from pathlib import Path
from typing import Any

from reference import filled

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "build" / "typing" / "xas_agent"
"""The repository root is the package, which mkdocstrings can only find under the package's name."""


def on_config(config: Any, **_: Any) -> None:
    PACKAGE.parent.mkdir(parents=True, exist_ok=True)
    if not PACKAGE.exists():
        PACKAGE.symlink_to(ROOT)


def on_page_markdown(markdown: str, **_: Any) -> str:
    return filled(markdown)
