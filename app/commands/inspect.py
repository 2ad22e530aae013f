"""``xas-agent inspect``: what a source contains, what would be read of it, and settings with which it would be."""

import logging
import shlex
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import ConfigOption, ConnectTimeoutOption, EdgeOption, ElementOption, PresetOption
from .shared import FAILED, USAGE, broker_of, exit_on_error, fail, is_tiled, refuse_unused, settings_of

if TYPE_CHECKING:
    from ...agent.survey import Reading
    from ..config import Config
    from ..jobs.gather import FileDocuments
    from ..jobs.inspect import Inspection, Trial

WIDTH = 80
MAX_FIELDS, MAX_STREAMS = 30, 8
_INTERVAL_S = 5.0
"""Time between two lines of progress in a log, s."""
_LABELS = {"energy": "energy", "i0": "I0", "it": "It", "iref": "Iref", "fluorescence": "If", "mu": "μ"}


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            help="zmq://HOST:PORT, tiled://HOST:PORT/PATH, a folder, a file of spectra, or a file of documents."
        ),
    ],
    runs: Annotated[int, typer.Option(min=1, help="Number of complete runs to wait for.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest wait for these runs, s.")] = 120.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="YAML file to write. [default: print the settings]")
    ] = None,
    config: ConfigOption = None,
    preset: PresetOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    connect_timeout: ConnectTimeoutOption = None,
) -> None:
    """Show the fields of a source, what is read of them and why, and settings to save."""
    from ..jobs.inspect import settings_text

    with exit_on_error():
        if out is not None and out.exists():
            fail(f"--out {out}: found an existing file, expected a new one", USAGE)
        looked = look(
            source, runs, timeout,
            config=config, preset=preset, element=element, edge=edge, connect_timeout=connect_timeout,
        )  # fmt: skip
        inspection, settings, source, files = looked.inspection, looked.settings, looked.source, looked.files
        _show_files(files)
        _show(inspection, settings, source, files)
        if files is not None and files.unknown is not None:
            _conclude_columns(files, inspection)
            return
        text = settings_text(inspection, settings, source)
        if out is not None:
            out.write_text(text, encoding="utf-8")
        _conclude(inspection, text, out, _next_command(source, files is not None, looked.listens, out))
        if out is None and inspection.then.frames:
            _say("Or let init save them, with a rule to rehearse:")
            typer.echo(f"  xas-agent init {shlex.quote(source)}")


@dataclass(frozen=True, slots=True)
class Looked:
    """A source that was looked at."""

    source: str
    """Its address, or the file of documents that was read."""
    listens: bool
    """Whether it is an endpoint."""
    settings: "Config"
    inspection: "Inspection"
    files: "FileDocuments | None"
    """The files of spectra; None if the source holds documents."""


def look(
    source: str,
    runs: int,
    timeout: float,
    *,
    config: str | None = None,
    preset: str | None = None,
    element: str | None = None,
    edge: str | None = None,
    connect_timeout: float | None = None,
) -> Looked:
    """Read a source for a while, or files, and find what they contain.

    Raises
    ------
    InputError
        The options, the config or the files cannot be used.
    EndpointUnreachable
        The endpoint cannot be reached.
    """
    from ..jobs.gather import documents_in, read_files
    from ..jobs.inspect import inspect_documents
    from ..session import source_of
    from ..signals import end_like_ctrl_c

    if broker_of(source):
        write = "record a run with bluesky, or subscribe inspect to the beamline's ZMQ proxy"
        fail(f"{source}: inspect reads no broker, where documents belong to a group of agents; {write}", USAGE)
    listens = source.startswith("zmq://") or is_tiled(source)
    if not listens:
        refuse_unused("without an endpoint", connect_timeout=connect_timeout)
    settings = settings_of(
        config, None, element, edge, source if listens else None, None, connect_timeout, preset=preset
    )
    end_like_ctrl_c()
    files = None
    if listens:
        past = None  # only documents that the source sends are inspected
        if settings.source is None:
            past = settings.tiled.model_copy(update={"past": runs, "follow": False})
        watched = settings.model_copy(update={"tiled": past})
        documents = _gather(source_of(watched), source, runs, timeout)
    elif (recorded := documents_in(Path(source))) is not None:
        source = str(recorded.path)
        documents = _gather(recorded, source, sys.maxsize, timeout)
    else:
        files = read_files(Path(source))
        documents = files.documents
    logging.getLogger("xas_agent").setLevel(logging.ERROR)  # the output describes the reading in words
    inspection = inspect_documents(documents, settings, of_files=files is not None)
    return Looked(source, listens, settings, inspection, files)


def _gather(source: Any, name: str, runs: int, timeout: float) -> list[Any]:
    """Return the documents of a source, with a line of progress on stderr."""
    from ..jobs.gather import Gathering

    if hasattr(source, "connect"):
        source.connect()
    gathering, live = Gathering(source, runs), runs < sys.maxsize
    if live:
        typer.echo(f"waiting at most {timeout:g} s for {_count(runs, 'run')} from {name}; Ctrl-C ends it", err=True)
    with _progress_on_stderr(live) as show:
        gathering.wait(timeout, show)
    if gathering.failure is not None:
        raise gathering.failure
    skipped: Counter[str] = getattr(source, "malformed_by_reason", None) or Counter()
    if not gathering.documents and skipped:
        reasons = ", ".join(f"{count} of them {reason}" for reason, count in skipped.items())
        fail(
            f"{name}: {skipped.total()} messages came, but none can be read: {reasons}; see the warnings above",
            FAILED,
        )
    if not gathering.documents:
        fail(
            f"{name}: found no document within {timeout:g} s; run a plan meanwhile, or check port and prefix", FAILED
        )
    return gathering.documents


@contextmanager
def _progress_on_stderr(live: bool) -> Iterator[Callable[[str], None]]:
    """Show lines on stderr: each in place of the one before on a terminal, else one in some seconds."""
    terminal, last = sys.stderr.isatty(), float("-inf")

    def show(line: str) -> None:
        nonlocal last
        if not live or (not terminal and time.monotonic() - last < _INTERVAL_S):
            return
        typer.echo(f"\r\x1b[K{line}" if terminal else line, err=True, nl=not terminal)
        last = time.monotonic()

    try:
        yield show
    finally:
        if terminal and last > 0:
            typer.echo(err=True)


def _show_files(files: "FileDocuments | None") -> None:
    if files is None:
        return
    for note in list(files.notes)[:8]:
        _say(f"Note: {note}")
    for error in files.refused[:8]:
        _say(f"Refused: {error}")
    if len(files.refused) > 8:
        _say(f"… and {len(files.refused) - 8} more files refused")


def _show(inspection: "Inspection", settings: Any, source: str, files: "FileDocuments | None") -> None:
    """Print what the documents contain and what is read of them."""
    found = inspection.survey
    own = f", {_count(found.own_runs, 'run')} of the agent left out" if found.own_runs else ""
    if files is not None:
        _say(f"{source}: {_count(files.files, 'file')}")
    else:
        _say(f"{source}: {_count(len(found.starts), 'run')}, {_count(found.documents, 'document')}{own}")
    for reason in dict.fromkeys(f"{item.reason}: {item.detail}" for item in found.problems[:5]):
        _say(f"Problem: {reason}")
    if inspection.skipped:
        _say(f"Not watched: the plan or kind of the runs {_skip_words(inspection.skipped)} (fields.skip_plans).")
    best = inspection.best
    readings = sorted(inspection.readings, key=lambda reading: reading is not best)
    for reading in readings[:MAX_STREAMS]:
        _show_stream(reading, settings, files)
    hidden = len(readings) - MAX_STREAMS + found.further_streams
    if hidden > 0:
        _say(f"… and {hidden} more streams")
    typer.echo()
    if best is None:
        _say("No stream shows an energy or intensities.")
        return
    show_reading(best, of_files=files is not None)
    if files is None:
        show_samples(inspection)
        _say(_preset(inspection))


def show_reading(reading: "Reading", *, of_files: bool, model: str | None = None) -> None:
    """Print what a stream or a table is read as and why, its element and its models, or the model named."""
    named = "The table" if of_files else f"Stream {reading.stream.name}"
    _say(f"{named} " + ("is read as it is:" if reading.as_it_is else "is not read as it is; likely:"))
    for role, found_role in reading.roles.items():
        _say(f"  {_LABELS.get(role, role):10} {', '.join(found_role.keys)}: {found_role.why}", " " * 13)
    if reading.refusal:
        _say(f"  Why not: {reading.refusal}", " " * 11)
    no_foil = "" if reading.roles.keys() & {"iref", "reference"} else "; no Iref, which only a foil needs"
    _say(f"Missing: {', '.join(reading.missing) or 'nothing'}{no_foil}")
    _say(_edges(reading))
    _say(f"Model: {model}, as named" if model else _model(reading))


def show_samples(inspection: "Inspection") -> None:
    """Print how the runs name their samples, which makes their scans one series."""
    found = inspection.samples
    if found.names:
        more = f" and {len(found.names) - 3} more" if len(found.names) > 3 else ""
        none = f"; {_count(found.unnamed, 'run')} without a name" if found.unnamed else ""
        _say(f"Sample: {', '.join(found.names[:3])}{more}{none}")
    if found.key:
        _say(f"Sample: by {found.key} of the RunStart likely, which is {', '.join(found.values[:3])}")
    elif found.unnamed and not found.names:
        _say(
            "Sample: not named, so that each run is a series of its own, and no rule follows several; set series.key "
            "to the key of the RunStart that holds the sample's name"
        )


def _show_stream(reading: "Reading", settings: Any, files: "FileDocuments | None") -> None:
    from rich.console import Console
    from rich.table import Table

    stream = reading.stream
    start = stream.run.start
    plan = f", plan {start['plan_name']}" if isinstance(start.get("plan_name"), str) else ""
    ignored = "" if settings.fields.reads(stream.name) else ", not read (fields.streams)"
    typer.echo()
    seen = f"{_count(stream.events, 'event')} in {_count(len(stream.runs), 'run')}"
    if files is None:
        _say(f"Stream {stream.name}: {seen}{plan}{ignored}")
    elif files.unknown is not None:
        _say(f"Columns of {files.unknown.name}, by name or number:")
    else:
        _say(f"Spectra, as the agent gets them: {stream.events}")
    roles = {key: _LABELS.get(role, role) for role, found in reading.roles.items() for key in found.keys}
    fields = sorted(stream.fields(), key=lambda field: field.key not in roles)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    table.add_column("field", overflow="fold", max_width=34)
    for title in ("unit", "first", "lowest", "highest"):
        table.add_column(title, justify="left" if title == "unit" else "right", overflow="fold", max_width=12)
    table.add_column("read as" if reading.as_it_is else "likely", no_wrap=True)
    for field in fields[:MAX_FIELDS]:
        example = "in a file" if field.external and field.example is None else _value(field.example)
        table.add_row(field.key, field.unit, example, _value(field.low), _value(field.high), roles.get(field.key, ""))
    Console(width=WIDTH, highlight=False, markup=False).print(table)
    if len(fields) > MAX_FIELDS:
        _say(f"… and {len(fields) - MAX_FIELDS} more fields")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _value(value: Any) -> str:
    """Return a value in at most 12 characters."""
    import numpy as np

    if value is None:
        return "–"
    if isinstance(value, (list, tuple, np.ndarray)):
        return f"{np.size(value)} values" if np.size(value) != 1 else _value(np.asarray(value).reshape(-1)[0])
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return f"{value:.7g}" if len(f"{value:.7g}") <= 12 else f"{value:.5g}"
    text = str(value)
    return text if len(text) <= 12 else f"{text[:11]}…"


def _edges(reading: "Reading") -> str:
    """Return what the energies say of element and edge."""
    run = reading.stream.run
    named = f"{run.element} {run.edge or ''}".strip() if run.element else ""
    if not reading.energies.size:
        return f"Element and edge: {named or 'unknown, because the energies are'}"
    covered = [f"{edge.element} {edge.edge} ({edge.energy_ev:.0f} eV)" for edge in reading.edges[:6]]
    if named and not any(edge.element == run.element for edge in reading.edges):
        return f"Element and edge: the run names {named}; its energies suggest {', '.join(covered) or 'no edge'}"
    if named:
        return f"Element and edge: {named}, as the run names it; its energies agree"
    if not reading.edge_seen:
        return f"Element and edge: unknown; the energies cover {', '.join(covered) or 'no edge'}"
    return f"Element and edge by the energies: {', '.join(covered) or 'no tabulated edge near the step'}"


def _model(reading: "Reading") -> str:
    """Return the installed models of the element that the run names or the energies show."""
    from ...models import card

    absorbers = {name: card.read_card(folder).absorber for name, folder in card.installed().items()}
    element = reading.stream.run.element or (
        reading.edges[0].element if reading.edge_seen and reading.edges else None
    )
    models = [name for name, absorber in absorbers.items() if absorber == element]
    if element is None or models:
        return f"Model: {', '.join(models) or 'by element and edge, when they are known'}"
    return f"Model: none is installed for {element}, so nothing is estimated; there are {', '.join(absorbers)}"


def _preset(inspection: "Inspection") -> str:
    match = inspection.preset
    if match is None or match.occurring < 2:
        return "Closest preset: none; fewer than two names of any preset occur"
    text = f"Closest preset: {match.name}; {match.occurring} of its {match.total} names occur"
    return f"{text}, but its plans differ: the runs' plan {_skip_words(match.skips)}" if match.skips else text


def _skip_words(skipped: str) -> str:
    return skipped if skipped.startswith("contains none") else f"contains {skipped!r}"


def _conclude(inspection: "Inspection", text: str, out: Path | None, command: str) -> None:
    """Print the settings, and what the agent makes of the documents with them."""
    typer.echo()
    if out is None:
        _say("Settings to save, as beamline.yaml for example:")
        typer.echo(f"\n{text}")
    else:
        _say(f"Written: {out}")
    _say(f"As it is, the agent reads {_outcome(inspection.now)}.")
    _say(f"With these settings it reads {_outcome(inspection.then)}.")
    if inspection.then.frames:
        _say(
            "Next: check the fields above, save the settings, then"
            if out is None
            else "Next: check the fields above, then"
        )
        typer.echo(f"  {command}")
    else:
        _say(_advice(inspection))


def _conclude_columns(files: "FileDocuments", inspection: "Inspection") -> None:
    """Print the options with which the columns of a file are read."""
    from ..jobs.inspect import read_columns

    assert files.unknown is not None
    options, trial = read_columns(files.unknown, inspection.proposed)
    typer.echo()
    _say("Options to add to xas-agent infer, align, convert or run --folder:")
    for option in options:
        typer.echo(f"  --column {shlex.quote(option)}")
    _say(f"With them, {files.unknown.name} gives {_outcome(trial)}.")


def _outcome(trial: "Trial") -> str:
    frames = f"{trial.frames} {'spectrum' if trial.frames == 1 else 'spectra'}"
    if not trial.set_aside:
        return frames
    aside = ", ".join(f"{count} set aside: {reason}" for reason, count in trial.set_aside.items())
    return f"{frames} ({aside}; first: {trial.first})"


def _advice(inspection: "Inspection") -> str:
    from ...agent.types import Reason

    if inspection.best is not None and inspection.best.missing:
        return f"Next: name {', '.join(inspection.best.missing)} under fields, then inspect with --config"
    if any(item.reason is Reason.JOINED_LATE for item in inspection.survey.problems):
        return "Next: inspect again before a run begins, so that its first documents are seen"
    if inspection.skipped:
        return "Next: change fields.skip_plans or fields.only_plans so that these runs are watched"
    if str(Reason.SEVERAL_MODELS) in inspection.then.set_aside:
        return "Next: name the element under fields, or the model under model.use, then inspect with --config"
    return "Next: correct what was set aside, or wait for a complete run"


def _next_command(source: str, spectra: bool, listens: bool, out: Path | None) -> str:
    config = f"--config {out or 'beamline.yaml'}"
    if listens:
        return f"xas-agent run {config}"
    if spectra:
        folder = Path(source) if Path(source).is_dir() else Path(source).parent
        return f"xas-agent run --folder {shlex.quote(str(folder))} {config}"
    return f"xas-agent replay {shlex.quote(source)} {config}"


def _say(text: str, indent: str = "  ") -> None:
    """Print a text in lines of at most ``WIDTH`` characters; words are never cut."""
    lines = textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    for line in lines:
        typer.echo(line)
