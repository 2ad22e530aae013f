"""Parts of all campaigns: their options, the table of their figures, and the memory of the process."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def parser_of(description: str | None, limit_s: float, limit_help: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all campaigns have: ``--seed`` and ``--limit``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=limit_s, help=limit_help)
    return parser


def memory_mb() -> float:
    """Return the memory that this process occupies, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES / 1e6


def report(figures: Mapping[str, Any], problems: Mapping[str, int]) -> NoReturn:
    """Print the figures and the problems that are not 0; exit with 1 if there are any."""
    for name, value in figures.items():
        print(f"{name:55} {value}")
    found = {what: number for what, number in problems.items() if number}
    for what, number in found.items():
        print(f"PROBLEM {int(number):6}  {what}")
    sys.exit(1 if found else 0)
