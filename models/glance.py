"""Shows a model card on one screen of 80 × 24 characters."""

import textwrap

from .card import HIT_E, Card, DescriptorCard
from .readable import MEANINGS

WIDTH, LINES = 80, 23
_INDENT = " " * 12
_SHORT = {
    "OCN": "oxygen neighbours among them",
    "CN2": "second-shell coordination number",
    "PSGO": "order of the crystal's point group",
    "NNRS": "spread of the first bond lengths",
    "MOOD": "shortest O–O in the first shell",
    "NNOSM": "mean OS of the first neighbours",
}
"""Meanings of descriptors that fit into the table."""


def glance(card: Card, named: str | None = None) -> str:
    """Return the essentials of a model for its users, in at most ``LINES`` lines of ``WIDTH`` characters.

    Parameters
    ----------
    named : str, optional
        Name or folder that the user gave for the model; unset: its own name.
    """
    t, offset, grid = card.training, card.feff_minus_experiment, card.grid
    low, high = card.edge_ev + grid.start_ev, card.edge_ev + (grid.short_stop_ev or grid.stop_ev)
    further = f", better to {card.edge_ev + grid.stop_ev:g}" if grid.short_stop_ev else ""
    trained = f"{t['rows']} computed sites of {t['materials']} materials"
    answer = f"{t['members']} networks answer together"
    lines = [
        f"{card.name}: {card.absorber} {card.edge} edge, {card.edge_ev:g} eV; {answer}",
        *_entry("measure", f"from well below {low:g} to at least {high:g} eV{further}", 1),
        *_entry("trained on", f"{trained}{', from ' + t['pretrained'] if t['pretrained'] else ''}", 1),
        *_entry(
            "energies", f"FEFF − experiment {offset.value_ev:g} ± {offset.sd_ev:g} eV, which the intervals include", 1
        ),
        *_entry("tested on", str(card.metrics["on"]), 2),
        "",
        f"{'descriptor':<11} {'what it is':<34} {'values':<12} {'score':<9} least ±",
        *(_row(card, d) for d in card.descriptors),
        "",
        *_entry("measured", _standards(card), 2),
    ]
    end = [
        *_entry("licence", card.licence, 1),
        f"xas-agent models show {named or card.name} --full: the whole card, with limits and citations",
    ]
    room = LINES - len(lines) - len(end)
    return "\n".join([*lines, *_entry("limits", " ".join(card.limits), room), *end])


def _entry(name: str, text: str, lines: int) -> list[str]:
    """Return a text under its name on at most ``lines`` lines; the rest is cut off at a word."""
    if lines < 1:
        return []
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{name:<12}", subsequent_indent=_INDENT, max_lines=lines, placeholder=" …"
    )


def _row(card: Card, d: DescriptorCard) -> str:
    metric = card.metrics.get(d.name, {})
    kind = "F1" if d.kind == "classified" else "R²"
    score = f"{kind} {metric['value']:.2f}" if "value" in metric else "–"
    values = ", ".join(map(str, d.classes)) if d.kind == "classified" else d.unit
    if len(values) > 12:
        values = f"{d.classes[0]} … {d.classes[-1]}"
    meaning = textwrap.shorten(_SHORT.get(d.name, MEANINGS.get(d.name, "")), 34, placeholder=" …")
    only = "" if d.mixture else "*"
    return f"{d.name + only:<11} {meaning:<34} {values:<12} {score:<9} {d.interval.least_half_width:.2g}"


def _standards(card: Card) -> str:
    single = "" if all(d.mixture for d in card.descriptors) else "; * has no meaning for a mixture of sites"
    judged = [s for s in card.standards if s.verdict in ("hit", "miss")]
    flagged = sum("flagged" in s.verdict for s in card.standards)
    if not card.standards:
        return f"no standard has judged it{single}"
    hits = sum(s.verdict == "hit" for s in judged)
    of = f"{hits} of {len(judged)} oxides within {HIT_E:g} e of the known OS" if judged else "no oxide"
    return f"{of}; {flagged} metals and the like flagged{single}"
