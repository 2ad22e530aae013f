"""``xas-agent report``: writes sessions as one HTML page without external resources."""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

from ...agent.types import InputError
from ...models.card import Card, find, read_card
from ...wording import counted
from ..output.recorder import OOD_LIMIT, TEMPERATURE_FIELDS, VOLTAGE_FIELDS, leading
from .report_data import QUANTITIES, Course, Measured, SessionData
from .report_page import Picture, Section, SessionReport, Table, in_words, render

PAGE = "report.html"
_FIGURES = 12
"""Largest number of series with their own picture."""
_NAME_CHARACTERS = 60
"""Largest length of a name beside its result, in characters."""
_COLUMNS = 6
"""Largest number of descriptors in the table of frames."""


def write_report(folders: Sequence[Path], file: Path) -> list[SessionData]:
    """Write the report of sessions, finished or running.

    Parameters
    ----------
    folders : sequence of Path
        Output folders of run or replay.
    file : Path
            HTML file; an existing one is replaced.

    Raises
    ------
    InputError
        A folder has no documents of an agent, or the file cannot be written.
    """
    from ..output.kept import replace_file

    read = [SessionData(folder) for folder in folders]
    page = render([report_of(data) for data in read]).encode("utf-8", "replace")

    def write(new: Path) -> None:
        new.write_bytes(page)

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, write)
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {error.strerror}; name another file with --out") from None
    return read


def report_of(data: SessionData) -> SessionReport:
    """Return the report on one session."""
    measured = list(data.measured.values())
    names = list(dict.fromkeys(_name(one) for one in measured))
    title = names[0] if len(names) == 1 else f"{len(names)} samples" if names else "No frame was answered"
    frames = data.recorder.frames
    made = data.recorder.decisions
    lead = f"{counted(frames, 'frame')}, {counted(made, 'decision')}"
    if set_aside := sum(data.recorder.set_aside.values()):
        lead += f", {set_aside} set aside"
    sections = [
        _measured(data, measured),
        _quality(data, measured),
        _descriptors(data, measured),
        _decisions(data),
        _rules(data),
        _model(data),
        _versions(data),
    ]
    units = data.recorder.drawn().descriptors
    facts = [
        (shorten(_name(one), _NAME_CHARACTERS, placeholder="…"), _headline(one, units)) for one in measured[:_FIGURES]
    ]
    return SessionReport(title, lead, data.simulated, bool(data.unfinished), facts, sections)


def _headline(one: Measured, units: Mapping[str, str]) -> str:
    """Return the change of the leading descriptor, in words."""
    first = leading(one.last_row)
    first = f"{first}_anchored" if f"{first}_anchored_mean" in one.courses else first
    course = one.courses.get(f"{first}_mean", Course())
    ends = f"{first} {_number(course.first)} → {_number(course.last)}"
    return f"{ends} {units.get(first, '')}".rstrip() if course.count else "no estimate"


def _measured(data: SessionData, measured: Sequence[Measured]) -> Section:
    """Return the section on samples, times and sources."""
    section = Section("What was measured")
    source = str(data.about[-1].get("source", "")).partition("?")[0] if data.about else ""
    section.texts.append(f"Folder {data.folder.resolve().name}; source: {source or 'not kept'}.")
    ends = [status for status in data.runs.values() if status]
    others = [status for status in ends if status != "success"]
    said = counted(len(data.runs), "watched run")
    said += (
        f", {len(others)} of them ended otherwise than with success ({', '.join(sorted(set(others)))})"
        if others
        else ""
    )
    section.texts.append(f"{said}.")
    if data.simulated:
        section.warnings.append("The beamline was simulated: these are not measurements.")
    if data.unfinished:
        section.warnings.append(
            "The session was running when this was written, or it broke off: its last run has no end."
        )
    if gain := data.summary.get("gain"):
        section.texts += [
            f"{name}: {gain[name]}." for name in ("open loop", "closed loop", "gained") if gain.get(name)
        ]
    rows = [
        (
            _name(one),
            " ".join(filter(None, (one.element, one.edge))),
            _range(one.scans),
            _files(one.files),
            str(one.frames),
            in_words(one.first_s),
            in_words(one.last_s),
        )
        for one in measured
    ]
    header = ("sample", "edge", "scan", "file", "frames", "first", "last")
    if rows:
        section.parts.append(Table("Samples", header, rows, frozenset({4})))
    for name, why in list(data.summary.get("files_not_read", {}).items())[:20]:
        section.warnings.append(f"not read: {name}: {why}")
    return section


def _quality(data: SessionData, measured: Sequence[Measured]) -> Section:
    """Return the section on alignment and data quality."""
    section = Section("Alignment and data quality")
    for one in measured:
        rows = [
            (f"{words} ({unit})" if unit else words, *_numbers(course, key), str(course.count))
            for key, (words, unit) in QUANTITIES.items()
            if (course := one.courses.get(key)) and course.count
        ]
        header = ("quantity", "first", "last", "mean", "lowest", "highest", "frames")
        section.parts.append(Table(_name(one), header, rows, frozenset(range(1, 7))))
        if one.flags:
            said = ", ".join(f"{flag} ({count})" for flag, count in one.flags.most_common())
            section.texts.append(f"Flags of {_name(one)}, with the number of frames: {said}.")
        if not one.courses.get("foil_shift_ev", Course()).count:
            section.texts.append(f"{_name(one)}: no foil was used; the energies are as recorded.")
    rows = [
        (reason, str(note.count), "; ".join(note.details))
        for reason, note in sorted(data.notes.items(), key=lambda item: -item[1].count)
    ]
    if rows:
        section.parts.append(
            Table("Set aside or missing, by reason", ("reason", "count", "for example"), rows, frozenset({1}))
        )
    else:
        section.texts.append("No frame was set aside.")
    drawn = data.recorder.drawn()
    if drawn.frames:
        from ..output.figures import quality_figure, save_svg

        text = "E0, energy shift, edge step and noise of the frames over time"
        caption = "Dotted lines: frames set aside." if drawn.notes else ""
        section.parts.append(_picture(save_svg(quality_figure(drawn)), text, caption))
    return section


def _descriptors(data: SessionData, measured: Sequence[Measured]) -> Section:
    """Return the section on descriptors over time, with pictures and tables."""
    from ..output.figures import operando_figure, part_of_series, save_svg

    section, drawn = Section("Descriptors over time"), data.recorder.drawn()
    units = drawn.descriptors
    section.texts.append(
        "Repeats of one sample scatter by the standard deviation in the column “repeats”. The 90 % interval holds "
        "all errors, most of which are common to the frames of a series: changes are more certain than levels. A "
        f"score above {OOD_LIMIT:g} means that the model does not know such spectra; the table of the "
        "descriptors leaves these frames out."
    )
    for number, one in enumerate(measured):
        names = [name for name in units if f"{name}_mean" in one.courses]
        rows = []
        for name in names:
            course, repeats = one.courses[f"{name}_mean"], one.courses.get(f"{name}_sd_frame", Course())
            interval = f"{_number(one.last_known.get(f'{name}_lo'))}…{_number(one.last_known.get(f'{name}_hi'))}"
            change = course.last - course.first
            rows.append(
                (
                    f"{name} ({units[name]})" if units[name] else name,
                    *map(_number, (course.first, course.last)),
                    f"{change:+.3f}" if course.count else "–",
                    *map(_number, (course.lowest, course.highest)),
                    f"{repeats.mean:.2g}" if repeats.count else "–",
                    interval,
                )
            )
        header = ("descriptor", "first", "last", "change", "lowest", "highest", "repeats", "90 % interval, last")
        section.parts.append(Table(f"{_name(one)}: descriptors", header, rows, frozenset(range(1, 8))))
        part = part_of_series(drawn, one.series, one.element)
        if part.frames and number < _FIGURES:
            text = f"{_name(one)}: {_headline(one, units)}; the tables beside it have the numbers"
            section.parts.append(_picture(save_svg(operando_figure(part, data.truth)), text, _name(one)))
        section.parts.append(_frames(one, names))
    if len(measured) > _FIGURES:
        section.texts.append(f"Pictures show the first {_FIGURES} of {len(measured)} series.")
    return section


def _frames(one: Measured, names: Sequence[str]) -> Table:
    """Return the table of a series' frames with their descriptors."""
    first = [name for name in (leading(one.last_row), f"{leading(one.last_row)}_anchored") if name in names]
    shown = [*first, *(name for name in names if name not in first)][:_COLUMNS]
    fields = (*VOLTAGE_FIELDS, *TEMPERATURE_FIELDS)
    driver = next((name for name in fields if name in one.courses), None)
    first_day, last_day = (in_words(time).partition(" ")[0] for time in (one.first_s, one.last_s))
    day = first_day if first_day == last_day else ""
    rows = [
        (
            in_words(row["time"]).removeprefix(f"{day} "),
            str(row["seq_num"]),
            *([_number(row.get(driver))] if driver else []),
            *(_number(row.get(f"{name}_mean")) for name in shown),
            _number(row["ood_score"]),
            row["flags"],
        )
        for row in one.table
    ]
    header = ("time", "frame", *([driver] if driver else []), *shown, "score", "flags")
    every = "all frames" if len(rows) >= one.frames else f"{len(rows)} of {one.frames} frames, evenly"
    return Table(
        f"{_name(one)}: {every}{f' of {day}' if day else ''}", header, rows, frozenset(range(1, len(header) - 1))
    )


def _decisions(data: SessionData) -> Section:
    """Return the section on decisions, their outcomes, and the persons involved."""
    section = Section("Decisions and outcomes")
    rows = [
        (
            in_words(row["time"]),
            row["sample"],
            row["rule"],
            _action(row),
            f"{row['reason']} (confidence {row['confidence']:.2f})",
            f"{row['status']}{': ' if row['status_reason'] else ''}{row['status_reason']}",
            _persons(row),
        )
        for row in sorted(data.decisions, key=lambda row: row["time"])
    ]
    if not rows:
        section.texts.append("No rule decided anything.")
        return section
    header = ("time", "sample", "rule", "action", "why", "outcome", "by whom")
    section.parts.append(Table("Decisions", header, rows))
    if data.more_decisions:
        section.texts.append(
            f"{counted(data.more_decisions, 'more decision is', 'more decisions are')} in decisions.csv."
        )
    if data.orders:
        orders = [
            (
                in_words(one.get("time", math.nan)),
                str(one.get("by", "")),
                str(one["command"]),
                str(one.get("outcome", "")),
            )
            for one in data.orders
        ]
        section.parts.append(Table("Commands of persons", ("time", "person", "command", "outcome"), orders))
    return section


def _persons(row: Mapping[str, Any]) -> str:
    """Return, in words, the persons who set the statuses of a decision."""
    steps = [(step, row.get(f"{step}_by"), row.get(f"{step}_at")) for step in ("proposed", "approved", "settled")]
    said = [f"{step} by {by}, {in_words(at or math.nan)}" for step, by, at in steps if by]
    return "; ".join(said) or "the agent"


def _action(row: Mapping[str, Any]) -> str:
    args = json.loads(row["args"] or "{}")
    return row["action"] + (f" ({', '.join(f'{key} {value}' for key, value in args.items())})" if args else "")


def _rules(data: SessionData) -> Section:
    """Return the section with the rules of the session."""
    section = Section("Rules as they were")
    for about in data.about:
        config, of = about.get("config", {}), str(about.get("config_sha256", ""))[:12]
        section.texts += [str(rule["text"]) for rule in about.get("rules", []) if rule.get("text")]
        shown = {key: config[key] for key in ("rules", "control", "anchors", "relative") if config.get(key)}
        if shown:
            code = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=90)
            section.codes.append((f"Config {of}", code))
        if not config.get("rules"):
            section.texts.append(f"Config {of} has no rules: the agent only watched.")
    if not data.about:
        section.warnings.append("The folder does not keep the settings of its session, so the rules are not known.")
    return section


def _model(data: SessionData) -> Section:
    """Return the section on the card of each model."""
    section = Section("Model")
    for name, sha in data.recorder.models.items():
        card = _card(name, sha, data.about)
        if card is None:
            section.warnings.append(f"{name}, SHA-256 {sha}: its card is not on this machine.")
            continue
        good = [d.name for d in card.descriptors if d.mixture and d.name not in card.hardly_known]
        single = [d.name for d in card.descriptors if not d.mixture]
        section.texts += [
            f"{name}: {card.absorber} {card.edge}, SHA-256 {sha}.",
            f"Good for: {', '.join(good)} of {card.absorber} sites, where the score is at most {OOD_LIMIT:g}.",
        ]
        bad = [f"{', '.join(sorted(card.hardly_known))}, of which it knows little."] if card.hardly_known else []
        bad += [f"{', '.join(single)} of mixtures of sites."] if single else []
        section.texts.append("Not for: " + " ".join([*bad, *card.limits]))
        offset = card.feff_minus_experiment
        section.texts.append(f"FEFF − experiment: {offset.value_ev:.2f} ± {offset.sd_ev:.2f} eV.")
        rows = [(d.name, d.unit or ", ".join(map(str, d.classes)), *_score(card, d.name)) for d in card.descriptors]
        header = ("descriptor", "unit or classes", "measure", "value")
        section.parts.append(
            Table(f"{name}: scores, {card.metrics.get('on', 'as the card says')}", header, rows, frozenset({3}))
        )
        section.texts.append(f"Licence: {card.licence}. Cite: {'; '.join(card.cite)}.")
    if not data.recorder.models:
        section.texts.append("No model was used.")
    return section


def _score(card: Card, name: str) -> tuple[str, str]:
    found = card.metrics.get(name)
    if not isinstance(found, Mapping) or "value" not in found:
        return "–", "–"
    error = f" ± {found['standard_error']:.3f}" if isinstance(found.get("standard_error"), float) else ""
    return str(found.get("metric", "")), f"{found['value']:.3f}{error}"


def _card(name: str, sha: str, about: Sequence[Mapping[str, Any]]) -> Card | None:
    """Return the card of a model on this machine; None if no installed model has this file."""
    used = [str(one) for kept in about for one in kept.get("config", {}).get("model", {}).get("use", ())]
    for one in dict.fromkeys([name, *used]):
        try:
            card = read_card(find(one))
        except InputError:
            continue
        if card.sha256 == sha:
            return card
    return None


def _versions(data: SessionData) -> Section:
    """Return the section on versions, settings and files."""
    section = Section("Versions and settings")
    rows = [
        (
            in_words(start["time"]),
            ", ".join(f"{name} {version}" for name, version in start.get("versions", {}).items()),
            f"{start['model']['name']} {start['model']['sha256'][:12]}",
            start["config_sha256"],
        )
        for start in data.starts
    ]
    header = ("from", "versions", "model", "config, SHA-256")
    section.parts.append(Table("The agent's runs, by what they were made with", header, rows))
    return section


def _picture(svg: bytes, text: str, caption: str) -> Picture:
    return Picture(f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}", text, caption)


def _name(one: Measured) -> str:
    return one.sample or f"run {one.last_row['run_uid'][:8]}"


def _range(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return "" if not found else str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]} ({len(found)})"


def _files(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found) if len(found) <= 3 else f"{found[0]} … {found[-1]} ({len(found)})"


def _numbers(course: Course, key: str) -> list[str]:
    digits = 2 if key.endswith("_ev") or key == "latency_ms" else 4
    return [f"{v:.{digits}f}" for v in (course.first, course.last, course.mean, course.lowest, course.highest)]


def _number(value: Any) -> str:
    """Return a number with three decimals; a dash for a missing one."""
    return f"{value:.3f}" if isinstance(value, int | float) and math.isfinite(value) else "–"
