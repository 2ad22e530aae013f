"""``xas-agent doctor``: whether this machine, its packages and a config are ready."""

import json
import sys
import textwrap
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ConfigOption
from .process import set_up_torch
from .shared import FAILED, exit_on_error

if TYPE_CHECKING:
    from ..jobs.finding import Finding

WIDTH, _INDENT = 80, " " * 18


def doctor(
    config: ConfigOption = None,
    out: Annotated[
        Path, typer.Option("--out", help="Output folder of the session whose disk is checked; it need not exist.")
    ] = Path("out"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest wait for an endpoint, s.")] = 3.0,
) -> None:
    """Check Python, packages, GPU, models, ports, endpoints, clock, disk and sessions, and say what to do.

    Each line begins with ok, off (not installed or not set, and not needed), warn or fail.
    """
    from ..jobs.doctor import findings

    found: list[Finding] = []
    with exit_on_error():
        set_up_torch(None)
        for finding in findings(config, out, timeout_s=timeout):
            found.append(finding)
            if not as_json:
                _say(finding)
    counts = Counter(finding.state for finding in found)
    if as_json:
        content = {"ok": not counts["fail"], "findings": [asdict(finding) for finding in found]}
        typer.echo(json.dumps(content, indent=1, ensure_ascii=False))
    else:
        typer.echo()
        typer.echo("\n".join(_wrapped(_verdict(counts, config), "", "  ")))
    if counts["fail"]:
        raise typer.Exit(FAILED)


def _say(finding: "Finding") -> None:
    """Print a finding in lines of at most ``WIDTH`` characters; words are never cut."""
    first = f"{finding.state:<5} {finding.check:<11} "
    lines = _wrapped(finding.text, first, _INDENT)
    if finding.remedy:
        lines += _wrapped(finding.remedy, f"{_INDENT}→ ", f"{_INDENT}  ")
    encoding = sys.stdout.encoding or "utf-8"  # if it lacks →, a line must still appear
    typer.echo("\n".join(lines).encode(encoding, "replace").decode(encoding))


def _wrapped(text: str, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )


def _verdict(counts: "Counter[str]", config: str | None) -> str:
    if counts["fail"]:
        return f"{counts['fail']} to mend before a session: see the lines with fail"
    warned = f"; {counts['warn']} to look at: see the lines with warn" if counts["warn"] else ""
    following = f"xas-agent rules explain {config}, then run it" if config else "xas-agent init, or xas-agent run"
    return f"ready{warned}. Next: {following}"
