"""Field names that suggest a role but are too ambiguous to be used without asking the user."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .names import SYNONYMS, match_synonyms, plain_name

_WORDS: Mapping[str, str] = {
    "i0": r"up|us|upstream|mon|monitor|incident|incoming|front|before|i0\w*|izero",
    "it": r"dn|down|ds|downstream|trans|transmitted|transmission|back|after|behind|it|i1",
    "iref": r"ref|reference|foil|iref|i2",
    "fluorescence": r"fl|fluo|fluor|fluorescence|sdd\d*|vortex\d*|pips|lytle|ge\d*|xsp\w*|tey|pfy",
}
"""Words in names, by role."""
_NO_INTENSITY = re.compile(
    r"(^|_)(gain|offset|clock|dark|set_?point|sensitivity|std|sigma|err|error|time\w*|timestamp|bias|status|seq\w*"
    r"|num\w*|index|temp\w*|pressure|position|pos|angle|theta|bragg|energy|dcm|mono|user_readback|rbv|motor)(_|$)"
)


def likely_keys(role: str, keys: Iterable[str]) -> list[str]:
    """Return the keys whose name suggests a role: usual names in files, or words such as ``dn`` for It.

    >>> likely_keys("it", ["ic_upstream_V", "ic_dn_V", "ic_dn_gain"])
    ['ic_dn_V']
    """
    keys = [key for key in keys if may_be_intensity(key)]
    if role not in SYNONYMS or role not in _WORDS:
        return []
    if found := match_synonyms(role, keys, in_files=True):
        return found
    word = re.compile(rf"(^|_)({_WORDS[role]})(_|$)")
    return [key for key in keys if word.search(plain_name(key))]


def may_be_intensity(key: str) -> bool:
    """Return whether the name of a field allows that it is an intensity.

    >>> may_be_intensity("ic_dn_V"), may_be_intensity("sample_temperature")
    (True, False)
    """
    return not _NO_INTENSITY.search(plain_name(key))


def scanned_motors(start: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Return the data keys of the motors that the plan scans, according to its hints or its ``motors``.

    >>> start = {"motors": ("mono",), "hints": {"dimensions": [[["mono"], "primary"]]}}
    >>> scanned_motors(start, ["mono", "mono_user_setpoint", "I0"])
    ['mono', 'mono_user_setpoint']
    """
    hints = start.get("hints")
    dimensions = hints.get("dimensions") if isinstance(hints, Mapping) else None
    names = [name for dimension in _list(dimensions) for part in _list(dimension)[:1] for name in _list(part)]
    motors = {str(name) for name in (*names, *_list(start.get("motors")))} - {"time"}
    return [key for key in keys if any(key == m or key.startswith((f"{m}_", f"{m}-")) for m in motors)]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
