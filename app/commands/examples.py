"""Examples and exit codes of every command: the end of each ``--help``, and of the reference, is made from them."""

import textwrap
from collections.abc import Mapping

from .shared import EXIT_CODES, FAILED, INTERRUPTED, SET_ASIDE, UNREACHABLE, USAGE

EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "init": (
        ("xas-agent init", "ask on the terminal, and write agent.yaml"),
        ("xas-agent init recorded.jsonl --above 3.5", "from a recording, with a rule"),
        ("xas-agent init zmq://HOST:5578 --action pause --authority confirm", "a person approves"),
    ),
    "doctor": (
        ("xas-agent doctor", "is this machine ready?"),
        ("xas-agent doctor --config agent.yaml --out night1", "with a config and its endpoints"),
        ("xas-agent doctor --json", "for a program"),
    ),
    "run": (
        ("xas-agent run", "watch the simulated beamline for a minute"),
        ("xas-agent run --config agent.yaml --out night1", "with a config of your own"),
        ("xas-agent run --source zmq://HOST:5578 --preset bmm --out night1", "a live beamline"),
        ("xas-agent run --folder /data/today --element Ni --out night1", "files as they come"),
        ("xas-agent run --resume night1", "go on after a restart"),
    ),
    "replay": (
        ("xas-agent replay recorded.jsonl --out again", "as fast as it goes"),
        ("xas-agent replay recorded.jsonl --speed 10 --config agent.yaml", "with your rules"),
    ),
    "sim": (
        ("xas-agent sim --frames 20 --truth truth.jsonl", "a charge, with what is true beside"),
        ("xas-agent sim --record recorded.jsonl", "keep its documents"),
    ),
    "view": (
        ("xas-agent view night1", "a session in a browser, running or finished"),
        ("xas-agent view night1 night2 --bind 127.0.0.1:9000", "two, side by side"),
    ),
    "report": (
        ("xas-agent report night1", "one HTML page in the folder"),
        ("xas-agent report night1 night2 --out week.html", "of several sessions"),
    ),
    "rules test": (
        ("xas-agent rules test agent.yaml night1 --figure rehearsal.png", "on what an agent answered"),
        ("xas-agent rules test agent.yaml recorded.jsonl --out rehearsed", "on a recording"),
    ),
    "rules explain": (("xas-agent rules explain agent.yaml", "what would it do, and when?"),),
    "rules triggers": (
        ("xas-agent rules triggers", "all kinds"),
        ("xas-agent rules triggers threshold plateau", "two of them"),
    ),
    "rules schema": (
        ("xas-agent rules schema > config.schema.json", "and as first line of the config:"),
        ("# yaml-language-server: $schema=config.schema.json", "the editor completes and checks it"),
    ),
    "status": (
        ("xas-agent status", "of the only session"),
        ("xas-agent status --session night1", "of one of several"),
    ),
    "pending": (("xas-agent pending", "what waits for you?"),),
    "approve": (
        ("xas-agent approve", "the only decision that waits"),
        ("xas-agent approve 1c9f --as ada", "one of several, by the beginning of its id"),
    ),
    "reject": (('xas-agent reject 1c9f --as ada --why "the cell leaks"', ""),),
    "pause": (("xas-agent pause --as ada", ""),),
    "resume": (("xas-agent resume --as ada", ""),),
    "stop": (("xas-agent stop --as ada", ""),),
    "halt": (('xas-agent halt --as ada --why "smoke in the hutch"', ""),),
    "release": (("xas-agent release --as ada", ""),),
    "inspect": (
        ("xas-agent inspect zmq://HOST:5578 --out beamline.yaml", "then measure one scan"),
        ("xas-agent inspect recorded.jsonl", "a file of documents"),
        ("xas-agent inspect scan.dat", "the columns of a file of spectra"),
    ),
    "convert": (
        ("xas-agent convert scan*.xdi --out series.jsonl", "files as documents"),
        ("xas-agent convert /data/today --watch --out today.msgpack", "those that come, too"),
    ),
    "align": (
        ("xas-agent align NiO.xdi --out aligned", "on the grid of the model for Ni"),
        ("xas-agent align scans --out aligned --format csv --no-pictures", "a folder of scans"),
    ),
    "infer": (
        ("xas-agent infer NiO.xdi", "a table"),
        ("xas-agent infer scans --model ni-k --format csv > descriptors.csv", "a folder of scans"),
        ("xas-agent infer scan.dat --column energy=mono --column mu=3", "by name or number"),
        ("xas-agent infer NiO.xdi --socket infer.socket", "at once, by xas-agent serve"),
    ),
    "serve": (
        ("xas-agent serve --socket infer.socket", "keep all models loaded"),
        ("xas-agent serve --element Ni", "those of one absorber, at a socket of your own"),
    ),
    "backfill": (
        ("xas-agent backfill /data/2025 --out descriptors --workers 4", "a folder and all within"),
        ("xas-agent backfill spectra/*.parquet --out descriptors --dry-run", "how much is it?"),
        ("xas-agent backfill tiled://HOST:8000/raw --out descriptors", "the runs of a catalogue"),
        ("xas-agent backfill /data --out D --engine dask --scheduler tcp://HOST:8786", "a cluster"),
    ),
    "models list": (("xas-agent models list", ""),),
    "models show": (
        ("xas-agent models show ni-k", "the card in one screen"),
        ("xas-agent models show ni-k --full", "the whole card"),
        ("xas-agent models show trained/my-co", "a model of your own"),
    ),
    "models export": (("xas-agent models export ni-k --out exported/ni-k", "for model.engine: onnx"),),
    "models verify": (("xas-agent models verify ni-k", ""),),
    "dataset label": (("xas-agent dataset label structures --absorber Co --name co_k", ""),),
    "dataset feff": (("xas-agent dataset feff structures --absorber Co --out runs", ""),),
    "dataset disorder": (("xas-agent dataset disorder structures --absorber Ti --rattle 0.05 --count 8", ""),),
    "dataset state": (("xas-agent dataset state runs", ""),),
    "dataset collect": (("xas-agent dataset collect runs --name co_k", ""),),
    "dataset append": (("xas-agent dataset append runs --out data/feff --least 200", ""),),
    "dataset merge": (("xas-agent dataset merge data/feff", ""),),
    "dataset tables": (("xas-agent dataset tables data/feff", ""),),
    "dataset omnixas": (("xas-agent dataset omnixas tutorial --absorber Ni --structures cifs --name ni", ""),),
    "dataset mp": (("xas-agent dataset mp xas.json --absorber Co --name co_k", ""),),
    "train": (
        ("xas-agent train fe-small --data data/feff", "a shipped training config"),
        ("xas-agent train my-co.yaml --data DATA --out MODELS --device cuda", "one of your own"),
    ),
    "evaluate": (
        ("xas-agent evaluate ni-k --data data/feff --quick", ""),
        ("xas-agent evaluate fe-k --data data/feff --beside extra-trees", "beside a competitor"),
    ),
    "calibrate": (("xas-agent calibrate NiO.xdi=NiO_Ni000 --feff data/feff/ni_k.npz --model ni-k", ""),),
    "standards": (("xas-agent standards standards.csv --spectra scans --out judged", ""),),
    "rebuild": (("xas-agent rebuild night1", ""),),
    "keys make": (
        ("xas-agent keys make agent", "a client"),
        ("xas-agent keys make beamline --server", "a side that binds"),
    ),
    "keys secret": (("xas-agent keys secret control.secret", ""),),
    "keys list": (("xas-agent keys list", ""),),
    "keys revoke": (("xas-agent keys revoke agent", ""),),
}
"""By command: lines to copy, each with what it is for."""

_SHORT = {
    0: "done",
    FAILED: "the source broke off, or the disk is full",
    USAGE: "the command line, a config or a file cannot be used",
    UNREACHABLE: "an endpoint cannot be reached",
    SET_ASIDE: "with --strict: spectra set aside or files refused",
    INTERRUPTED: "interrupted",
}
_ORDER = {0: "done", FAILED: "requested, but not carried out", USAGE: _SHORT[USAGE], INTERRUPTED: _SHORT[INTERRUPTED]}
_ORDERS = ("pause", "resume", "stop", "halt", "release")
_ENDS: Mapping[str, tuple[int, ...]] = {
    "init": (0, FAILED, USAGE, UNREACHABLE, INTERRUPTED),
    "run": tuple(_SHORT),
    "replay": (0, FAILED, USAGE, SET_ASIDE, INTERRUPTED),
    "sim": (0, USAGE, UNREACHABLE, INTERRUPTED),
    "inspect": (0, FAILED, USAGE, UNREACHABLE, INTERRUPTED),
    "backfill": tuple(_SHORT),
    "models verify": (0, FAILED, USAGE, INTERRUPTED),
    "infer": (0, USAGE, UNREACHABLE, SET_ASIDE, INTERRUPTED),
    **dict.fromkeys(("convert", "align", "standards"), (0, USAGE, SET_ASIDE, INTERRUPTED)),
}
_WIDTH = 74
"""Longest line of an example."""


def exit_codes_of(command: str) -> dict[int, str]:
    """Return in short words what the exit codes of a command mean.

    >>> exit_codes_of("models show")[0]
    'done'
    """
    if command == "doctor":
        return {0: "nothing failed", FAILED: "a line says fail", USAGE: _SHORT[USAGE]}
    if command in _ORDERS:
        return _ORDER
    return {code: _SHORT[code] for code in _ENDS.get(command, (0, USAGE, INTERRUPTED))}


def help_end(command: str) -> str:
    """Return the examples and exit codes of a command, the end of its ``--help``."""
    codes = ["Exit codes:", *(f"  {code:<4} {meaning}" for code, meaning in exit_codes_of(command).items())]
    return "\n\n".join(map(_as_it_is, filter(None, (_example_lines(EXAMPLES.get(command, ())), codes))))


def all_exit_codes() -> str:
    """Return what every exit code means and what to do, the end of the ``--help`` of all commands."""
    lines = [
        textwrap.fill(
            f"{meaning} {remedy}", 76, initial_indent=f"{code:<5}", subsequent_indent=" " * 5, break_on_hyphens=False
        )
        for code, (meaning, remedy) in EXIT_CODES.items()
    ]
    return _as_it_is(["Exit codes:", *lines]).replace("`", "")


def _as_it_is(lines: list[str]) -> str:
    """Return a paragraph that the help does not fill anew."""
    return "\b\n" + "\n".join(lines)


def _example_lines(examples: tuple[tuple[str, str], ...]) -> list[str]:
    if not examples:
        return []
    widest = max(len(line) for line, _ in examples)
    beside = all(widest + 4 + len(about) <= _WIDTH for _, about in examples)
    lines = ["Examples:" if len(examples) > 1 else "Example:"]
    for line, about in examples:
        lines.append(f"  {line:<{widest}}  {about}".rstrip() if beside else f"  {line}")
        lines += [] if beside or not about else [f"      {about}"]
    return lines
