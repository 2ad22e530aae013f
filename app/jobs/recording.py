"""Recordings for the rehearsal of rules: documents of an agent, or measurements of a beamline."""

import csv
import math
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from ...adapters.files import DOCUMENT_SUFFIXES, FileSource, FolderSource
from ...adapters.formats import Columns
from ...agent.decide import Observed, Rule, SeriesPoint, Uncertainty
from ...agent.publish import Answered, Ended, PublishedReader
from ...agent.relative import RelativeQuantities, derived_units
from ...agent.types import Edge, Frame, InputError, SetAside, get_logger
from ...models.card import Card, read_card
from ...sim_beamline.replay import Replay
from ..config import Config
from ..output.cells import text_of
from ..output.folder import DECISIONS, DOCUMENTS, OutputFolder
from ..session import Session
from ..wiring import check_rules, model_folders

_log = get_logger()

_RECORDED_TIME = "recorded_time"
"""Reading, in a replayed folder, of the time at which a frame was measured."""
_CLOCKS = ((3600.0, "h"), (60.0, "min"))
_YEAR_S = 365.25 * 86400
_SERIES = ("spectra.npz", "series.csv")
"""Files of a folder that ``xas-agent replay`` accepts."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """The properties of a model that are known without loading it."""

    name: str
    edge: Edge


@dataclass(frozen=True)
class Recording:
    """The documents that an agent published for an experiment."""

    items: Sequence[Answered | SetAside | Ended]
    """Frames, notes and ends of runs in the order of publication."""
    units: Mapping[str, str]
    """Units of the quantities, by name."""
    stopped_by: frozenset[str] = frozenset()
    """Rules that stopped the experiment, so that nothing more was recorded."""

    @property
    def frames(self) -> list[Answered]:
        """The frames; there is at least one."""
        return [item for item in self.items if isinstance(item, tuple)]

    @property
    def notes(self) -> list[SetAside]:
        """The notes on frames that were set aside or were missing."""
        return [item for item in self.items if isinstance(item, SetAside)]

    @property
    def clock(self) -> tuple[float, str]:
        """Length, s, and name of the unit of time that suits the recording."""
        span = max(frame.time for frame, *_ in self.frames) - self.start
        return next(((size, name) for size, name in _CLOCKS if span >= 2 * size), (1.0, "s"))

    @property
    def start(self) -> float:
        """Time of the earliest frame, Unix s."""
        return min(frame.time for frame, *_ in self.frames)

    def judged_by(self, rule: Rule) -> list[Answered]:
        """Return the frames of the rule's absorber."""
        return [item for item in self.frames if rule.concerns(item[0].element, item[0].edge)]

    def points(self, quantity: str, rule: Rule, uncertainty: Uncertainty = "all") -> list[SeriesPoint]:
        """Return the values of a quantity in all frames that the rule judges and that have it."""
        observed = (Observed(*item) for item in self.judged_by(rule))
        return [point for one in observed if (point := one.point(quantity, uncertainty)) is not None]


def is_answered(path: Path) -> bool:
    """Return whether a path is the folder of a session, or a file with documents of an agent.

    Raises
    ------
    DocumentFileError
        The path is a file without documents.
    """
    if path.is_dir():
        return (path / DOCUMENTS).is_file()
    starts = (doc for name, doc in FileSource(path) if name == "start")
    return next(starts, {}).get("xas_agent") is True


def read_recording(path: Path) -> Recording:
    """Read the frames and notes of a session's folder or of its documents, in the order of publication.

    Frames of a replayed folder receive the time at which they were measured.

    Raises
    ------
    InputError
        There are no documents of an agent, or they hold no frame.
    """
    documents = path / DOCUMENTS if path.is_dir() else path
    read = PublishedReader()
    items = [item for name, doc in FileSource(documents) for item in read(name, doc)]
    recording = Recording(_with_a_time(list(map(_at_its_time, items))), read.units, _stopping_rules(path))
    if not recording.frames:
        raise InputError(f"{documents}: found no frame of an agent; name the documents of a session of run or replay")
    return recording


def _stopping_rules(path: Path) -> frozenset[str]:
    """Return the rules whose ``stop`` was acknowledged in the session of a folder."""
    table = path / DECISIONS
    if not table.is_file():
        return frozenset()
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["action"] == "stop"]
    return frozenset(text_of(row["rule"]) for row in rows if row["status"] == "acknowledged")


def with_relative(recording: Recording, config: Config) -> Recording:
    """Add the anchored values, changes and rates of a config to a recording that lacks them.

    Values that the session published stay. Quantities that need spectra, such as distances, cannot be added.

    Raises
    ------
    ModelError, ConfigError
        As for :func:`model_folders`.
    """
    published = {name for _, estimate, _ in recording.frames for name in estimate.descriptors}
    relative = config.relative.model_copy(update={"references": ()})
    asked = {f"{name}_change" for name in relative.change} | {f"{name}_rate" for name in relative.rate}
    asked |= {f"{name}_anchored" for anchor in config.anchors for name in anchor.values}
    if not asked - published:
        return recording
    cards = [read_card(folder) for folder in model_folders(config)]
    estimated = {name: recording.units.get(name, "") for name in published}
    compute, items = RelativeQuantities(config.anchors, relative, estimated), list[Answered | SetAside | Ended]()
    for item in recording.items:
        if isinstance(item, Ended):
            compute.forget(item.run_uid)
        if isinstance(item, tuple) and (card := next((c for c in cards if _fits(c, item[0])), None)):
            frame, estimate, quantities = item
            found = compute(frame, _Scale(card.name, card.edge_of_absorber()), estimate, frame.mu, math.nan)
            whole = replace(estimate, descriptors={**found.descriptors, **estimate.descriptors})
            items.append((frame, whole, quantities))
        else:
            items.append(item)
    units = {name: unit for name, unit in derived_units(relative, estimated).items() if unit}
    return replace(recording, items=items, units={**units, **recording.units})


def _fits(card: Card, frame: Frame) -> bool:
    return frame.element in (None, card.absorber) and frame.edge in (None, card.edge)


def answer(
    path: Path,
    config: Config,
    output: OutputFolder | None = None,
    *,
    element: str | None = None,
    edge: str | None = None,
    columns: Columns | None = None,
) -> Recording:
    """Let an agent answer the measurements of a beamline as fast as it can, without any decisions.

    Parameters
    ----------
    path : Path
        File of documents, folder of measured files, or folder with ``spectra.npz`` and ``series.csv``.
    config : Config
        Its rules are checked against the models.
    output : OutputFolder, optional
        Stores what the agent publishes.
    element, edge : str, optional
        Absorber and edge; they replace those in the files of a folder.
    columns : mapping, optional
        As for :func:`read_spectra`, for the files of a folder.

    Raises
    ------
    InputError
        The recording or a rule cannot be used, or no frame can be answered.
    KeyboardInterrupt
        A signal ended the work.
    """
    replayed = None
    if path.is_dir() and all((path / name).is_file() for name in _SERIES):
        replayed = Replay(path, None, element=element, edge=edge, recorded_times=True)
    settings, read, items = config.estimating(), PublishedReader(), list[Answered | SetAside | Ended]()
    planned = None if replayed is None else len(replayed)
    session = Session(settings, output, planned=planned, name=shlex.quote(str(path)))
    session.agent.subscribe(lambda name, doc: items.extend(read(name, doc)))
    with session:
        check_rules(config, session.agent.models)
        if replayed is not None:
            replayed.subscribe(session.agent)
            session.follow(replayed.run)
        else:
            source = _source(path, element, edge, columns)
            with closing(source):
                session.watch(source)
    if session.failure is not None:
        raise session.failure
    if session.interrupted:
        raise KeyboardInterrupt
    recording = Recording(_with_a_time(items), read.units)
    if not recording.frames:
        raise InputError(_why_nothing(path, session))
    return recording


def _source(path: Path, element: str | None, edge: str | None, columns: Columns | None) -> FileSource | FolderSource:
    if path.is_dir():
        return FolderSource(path, element=element, edge=edge, columns=columns, once=True)
    return FileSource(path)


def _why_nothing(path: Path, session: Session) -> str:
    """Return in words why no frame of a recording was answered, and advice."""
    reasons = [f"{count} set aside ({reason})" for reason, count in session.recorder.set_aside.items()]
    reasons += [f"{count} lost ({reason})" for reason, count in session.recorder.gaps.items()]
    reasons += [f"{name} not read ({why})" for name, why in list(session.files_not_read.items())[:3]]
    kinds = f"files of spectra, or {' '.join(DOCUMENT_SUFFIXES)} of documents"
    found = ", ".join(reasons) or f"nothing that can be read, expected {kinds}"
    return f"{path}: no frame could be answered: {found}; xas-agent inspect {shlex.quote(str(path))} shows more"


def _with_a_time(items: list[Answered | SetAside | Ended]) -> list[Answered | SetAside | Ended]:
    """Leave out frames whose clock was not set: their time, often 0, is a year or more away from the others'."""
    times = [item[0].time for item in items if isinstance(item, tuple)]
    middle = median(times) if times else 0.0
    kept = [item for item in items if not (isinstance(item, tuple) and abs(item[0].time - middle) > _YEAR_S)]
    if left_out := len(items) - len(kept):
        why = "their time is a year or more from that of the others: was a clock not set?"
        _log.warning("frames are left out of the rehearsal", frames=left_out, why=why)
    return kept


def _at_its_time(item: Answered | SetAside | Ended) -> Answered | SetAside | Ended:
    if not isinstance(item, tuple):
        return item
    frame: Frame = item[0]
    recorded = frame.readings.get(_RECORDED_TIME)
    return item if recorded is None else (replace(frame, time=recorded), *item[1:])
