"""Inspects documents or files: their contents, what the agent reads of them, and settings that make it read them."""

import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...adapters.formats import SpectrumFileError, flaw, read_spectra
from ...agent.estimate import choose_model
from ...agent.fields import FieldSettings, is_pattern, match_keys, skip_reason
from ...agent.survey import ROLES, Reading, SamplesFound, Survey, explain, find_samples, proposed_fields, survey
from ...agent.types import Document, Frame, Reason, Received, Refusal, SetAside
from ...models import card
from ...models.lazy import LazyModel
from ..config import Config, load_config, presets
from ..wiring import asset_filler, frame_reader

WIDTH = 76
"""Width of the lines of YAML."""


@dataclass(frozen=True, slots=True)
class PresetMatch:
    """Number of names in a beamline preset that occur in the documents."""

    name: str
    occurring: int
    total: int
    skips: str
    """Why the preset skips the runs; empty if it reads them."""


@dataclass(slots=True)
class Trial:
    """The agent's frames and notes for the documents with certain settings."""

    frames: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    first: str = ""
    """Detail of the first note on data set aside."""

    def set_one_aside(self, reason: str, detail: str) -> None:
        """Count a spectrum that was set aside."""
        self.set_aside[reason] += 1
        self.first = self.first or detail


@dataclass(slots=True)
class Inspection:
    """The contents of a source, and what the agent reads of it."""

    survey: Survey
    readings: list[Reading]
    best: Reading | None
    """The stream that the proposed settings are for."""
    skipped: str
    """Why no run is watched; empty if one is."""
    preset: PresetMatch | None
    """The closest preset; None if no name of any preset occurs."""
    proposed: dict[str, tuple[Any, str]]
    """Keys of ``fields`` with their values and reasons."""
    samples: SamplesFound
    now: Trial
    """Result with the given settings."""
    then: Trial
    """Result with the proposed settings."""


def inspect_documents(documents: Sequence[Document], config: Config, *, of_files: bool = False) -> Inspection:
    """Find the contents of documents, what the agent reads of them, and settings with which it would read them.

    Documents ``of_files`` of spectra use the same names for all files, so that readable ones need no settings.
    """
    found = survey(documents, config.fields, [asset_filler(config)])
    readings = [explain(stream, config.fields) for stream in found.streams]
    best = max(readings, key=_promise, default=None)
    if best is not None and not best.roles:
        best = None
    now = read_frames(documents, config)
    proposed = proposed_fields(best, config.fields) if best and not (of_files and best.as_it_is) else {}
    given = config.fields.model_dump(exclude_unset=True)
    complete = {**given, **{key: value for key, (value, _) in proposed.items()}}
    then = read_frames(documents, config.model_copy(update={"fields": FieldSettings.model_validate(complete)}))
    return Inspection(
        survey=found,
        readings=readings,
        best=best,
        skipped=_why_skipped(found, config.fields),
        preset=_closest_preset(found, config),
        proposed=proposed,
        samples=find_samples(found.starts, config.series),
        now=now,
        then=then,
    )


def _promise(reading: Reading) -> tuple[bool, int, int]:
    """Return a rank of how well a stream serves as the stream of spectra."""
    return reading.as_it_is, -len(reading.missing), reading.stream.events


def read_frames(documents: Iterable[Document], config: Config) -> Trial:
    """Count the frames that the agent assembles from documents, and what it sets aside.

    Of two models that fit, as in a scan over two edges, the agent takes none.
    """
    trial, reader = Trial(), frame_reader(config)
    models = [LazyModel(card.find(name)) for name in config.model.use or card.installed()]
    outcomes = [out for name, doc in documents for out in reader(Received(name, doc, time.monotonic()))]
    for outcome in [*outcomes, *reader.finish()]:
        if isinstance(outcome, Frame):
            chosen = choose_model(models, outcome.energy, outcome.mu, outcome.element, outcome.edge)
            if isinstance(chosen, Refusal) and chosen.reason is Reason.SEVERAL_MODELS:
                trial.set_one_aside(str(chosen.reason), chosen.detail)
            else:
                trial.frames += 1
        elif isinstance(outcome, SetAside):
            trial.set_one_aside(str(outcome.reason), outcome.detail)
    return trial


def read_columns(file: Path, proposed: Mapping[str, tuple[Any, str]]) -> tuple[list[str], Trial]:
    """Return the options ``--column`` for the proposed roles of a file's columns, and the result with them."""
    named = {role: value for role, (value, _) in proposed.items() if role in ROLES and role != "position"}
    if "position" in proposed and "energy" not in named:
        named = {"energy": proposed["position"][0], **named}
    columns: dict[str, list[str | int]] = {
        role: list(value) if isinstance(value, list) else [value] for role, value in named.items()
    }
    if "position" in proposed and (spacing := proposed.get("relation", ({}, ""))[0].get("d_spacing_ang")):
        columns["d_spacing"] = [str(spacing)]
    options = [f"{role}={','.join(map(str, names))}" for role, names in columns.items()]
    trial = Trial()
    try:
        for spectrum in read_spectra(file, columns=columns):
            if why := flaw(spectrum):
                trial.set_one_aside(str(why.reason), why.detail)
            else:
                trial.frames += 1
    except SpectrumFileError as error:
        trial.set_one_aside("file not readable", str(error))
    return options, trial


def _closest_preset(found: Survey, config: Config) -> PresetMatch | None:
    matches = [_match(name, found, config) for name in presets()]
    closest = max(matches, key=lambda m: (m.occurring, m.occurring / max(m.total, 1)), default=None)
    return closest if closest is not None and closest.occurring else None


def _match(name: str, found: Survey, config: Config) -> PresetMatch:
    """Count the names of a preset that occur in the documents: data keys, and streams of a fly scan."""
    preset = load_config(None, name)
    keys = {key for stream in found.streams for key in stream.keys}
    element = config.fields.element or next((run.element for run in found.starts if run.element), None)
    named = [value for role in ROLES if (value := getattr(preset.fields, role, None))]
    names = [n for value in named for n in ((value,) if isinstance(value, str) else value)]
    occurring = [n for n in names if match_keys(n, keys, element if is_pattern(n) else None)]
    traces = [preset.fly.signals, preset.fly.axis] if preset.fly is not None else []
    streams = [trace for trace in traces if any(trace.reads(stream.name) for stream in found.streams)]
    skips = _why_skipped(found, preset.fields)
    return PresetMatch(name, len(occurring) + len(streams), len(names) + len(traces), skips)


def _why_skipped(found: Survey, fields: FieldSettings) -> str:
    """Return why the settings skip the first run; empty if they watch any run."""
    reasons = [skip_reason(fields, run.start) for run in found.starts]
    return next(filter(None, reasons), "") if all(reasons) else ""


def settings_text(inspection: Inspection, config: Config, origin: str) -> str:
    """Return the proposed settings as YAML, with the reasons as comments; ``load_config`` accepts it."""
    given = config.model_dump(mode="json", exclude_unset=True)
    if config.preset is not None:
        given = _beyond(given, load_config(None, config.preset).model_dump(mode="json", exclude_unset=True))
        given = {"preset": config.preset, **given}
    lines = [f"# Settings for {origin}, proposed by xas-agent inspect."]
    fields = given.pop("fields", None) or {}
    if inspection.samples.key:
        given.pop("series", None)
    lines += _yaml(given)
    proposed = inspection.proposed
    fields = {key: value for key, value in fields.items() if key not in proposed}
    if fields or proposed:
        lines.append("fields:")
    lines += [f"  {line}" for line in _yaml(fields)]
    for key, (value, why) in proposed.items():
        lines += [f"  # {part}" for part in textwrap.wrap(why, WIDTH - 2)]
        lines += [f"  {line}" for line in _yaml({key: value})]
    best = inspection.best
    unnamed = best is not None and config.fields.element is None and best.edge_seen and best.edges
    if best is not None and unnamed and best.stream.run.element != best.edges[0].element:
        edge, remark = best.edges[0], "# If every run measures this edge, which the energies show:"
        named = (f"element: {edge.element}", f"edge: {edge.edge}")
        if fields or proposed:
            lines += [f"  {remark}", *(f"  # {line}" for line in named)]
        else:
            lines += [remark, "# fields:", *(f"#   {line}" for line in named)]
    if key := inspection.samples.key:
        lines += [
            "series:",
            "  # names the sample, whose scans then form one series",
            *(f"  {x}" for x in _yaml({"key": key})),
        ]
    return "\n".join(lines) + "\n"


def _beyond(content: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content without values that equal the defaults."""
    kept: dict[str, Any] = {}
    for key, value in content.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            value = _beyond(value, default)
            if value:
                kept[key] = value
        elif key not in defaults or value != default:
            kept[key] = value
    return kept


def _yaml(content: Mapping[str, Any]) -> list[str]:
    """Return the lines of a mapping in YAML; a value that fits on its line stays on one line."""
    lines: list[str] = []
    for key, value in content.items():
        flow = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
        line = f"{key}: {flow.removesuffix('...' + chr(10)).strip()}"
        if len(line) <= WIDTH or not isinstance(value, (dict, list)):
            lines.append(line)
        else:
            block = yaml.safe_dump({key: value}, default_flow_style=False, sort_keys=False, allow_unicode=True)
            lines += block.splitlines()
    return lines
