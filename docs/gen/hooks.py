"""MkDocs' hooks: fill in what is generated from the code, and show docstrings' roles as plain names."""

import re
from typing import Any

from reference import filled


def on_page_markdown(markdown: str, **_: Any) -> str:
    return filled(markdown)


def on_page_content(html: str, **_: Any) -> str:
    return re.sub(
        r":(?:class|func|meth|mod|attr|data|exc):<code>~?(?:[\w.]*\.)?(\w+)</code>", r"<code>\1</code>", html
    )
