"""States that later frames depend on besides their own data, in a form that a journal can store."""

from typing import Any

Memory = dict[tuple[str | None, ...], Any]
"""States by key. A key begins with the series or run whose end makes the state useless (empty: none), followed by the
owner of the state. A state consists of numbers, texts, bytes, arrays, lists and mappings."""
