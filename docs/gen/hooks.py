"""MkDocs' hooks: find the package, fill in what is generated from the code, refuse a site that needs the internet."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from reference import filled

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "build" / "typing" / "xas_agent"
"""The repository root is the package, which mkdocstrings can only find under the package's name."""
LOADED = re.compile(r'<(?:script|link(?![^>]*rel="canonical")|img)[^>]*(?:src|href)="((?:https?:)?//[^"]*)"')


def on_config(config: Any, **_: Any) -> None:
    PACKAGE.parent.mkdir(parents=True, exist_ok=True)
    if not PACKAGE.exists():
        PACKAGE.symlink_to(ROOT)


def on_page_markdown(markdown: str, **_: Any) -> str:
    return filled(markdown)


def on_post_build(config: Mapping[str, Any], **_: Any) -> None:
    pages = list(Path(config["site_dir"]).rglob("*.html"))
    if not pages:
        raise PluginError(f"no page in {config['site_dir']}")
    for page in pages:
        if elsewhere := LOADED.findall(page.read_text("utf-8")):
            raise PluginError(f"{page} loads {', '.join(elsewhere)}: keep a copy under docs/assets")
