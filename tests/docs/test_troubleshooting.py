"""The page by symptom knows every reason, and names commands that exist."""

import re
import shlex
from pathlib import Path

import pytest
from command_lines import parsed

from xas_agent.agent.types.reasons import Reason

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
CODE = re.compile(r"`([^`\n]+)`")
LINES = sorted({code for code in CODE.findall(PAGE) if code.startswith("xas-agent ") and ":" not in code})


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_found_by_its_name(reason):
    assert f"`{reason.value}`" in PAGE


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_one_that_the_parser_takes(line):
    parsed(shlex.split(line.partition(" > ")[0])[1:])
