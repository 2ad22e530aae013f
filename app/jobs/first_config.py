"""Writes the first config of a beamline, with comments, for ``xas-agent init``."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import yaml

from ...agent.types import InputError
from ..config import load_config

WIDTH = 78
_ABOUT = {
    "preset": "The beamline whose names of fields are used; the keys below override them.",
    "source": "Where the documents come from: the out-port of a bluesky proxy.",
    "tiled": "Where the documents come from: a Tiled catalogue.",
    "nats": "Where the documents come from: a NATS stream, whose runs agents of one group share.",
    "kafka": "Where the documents come from: a Kafka topic, whose runs agents of one group share.",
    "fields": "What is what in the documents. Check the guesses: exchanged fields turn a spectrum upside down.",
    "series": "Which scans belong together: those of one sample, which this key of the RunStart names. A rule "
    "follows them also over several runs.",
}
LIVE = ("source", "tiled", "nats", "kafka")
"""Keys of the endpoints that supply documents."""
Authority = Literal["off", "confirm"]
Kind = Literal["documents", "files", "simulated"]


@dataclass(frozen=True, slots=True)
class FirstRule:
    """The rule of a first config, which decides when a descriptor has been beyond a level for three frames."""

    quantity: str = "OS"
    above: float | None = None
    below: float | None = None
    action: str = "pause"
    authority: Authority = "off"
    """``off``: decisions are advice; ``confirm``: a person approves each one."""

    @property
    def name(self) -> str:
        """Name that the rule's decisions carry."""
        side, level = ("above", self.above) if self.above is not None else ("below", self.below)
        return f"{self.quantity} {side} {level:g}"


def models_of(element: str | None, edge: str | None) -> list[str]:
    """Return the names of the installed models for an absorber, or of all models if it is unknown.

    Raises
    ------
    InputError
        No model for the absorber is installed.
    """
    from ...models import card

    cards = {name: card.read_card(folder) for name, folder in card.installed().items()}
    fit = [name for name, c in cards.items() if element in (None, c.absorber) and edge in (None, c.edge)]
    if not fit:
        served = ", ".join(f"{c.absorber} {c.edge}" for c in cards.values())
        wanted = " ".join(filter(None, (element, edge)))
        raise InputError(f"no model for {wanted}: found models for {served}; train one, and name it with --model")
    return fit


def check_model(name: str, element: str | None, edge: str | None) -> None:
    """Refuse a model of another absorber or edge; None matches any.

    Raises
    ------
    InputError
        There is no such model, or it is for other spectra, so that nothing would be estimated.
    """
    from ...models import card

    found = card.read_card(card.find(name))
    if element not in (None, found.absorber) or edge not in (None, found.edge):
        spectra = " ".join(filter(None, (element, edge)))
        raise InputError(
            f"--model {name}: found a model of {found.absorber} {found.edge}, but the spectra are {spectra}"
        )


def check_quantity(models: Sequence[str], quantity: str) -> None:
    """Refuse a quantity that no model estimates.

    Raises
    ------
    InputError
        The message lists the descriptors.
    """
    from ...models import card

    known = dict.fromkeys(d.name for name in models for d in card.read_card(card.find(name)).descriptors)
    if quantity not in known:
        raise InputError(f"--quantity: found {quantity}, expected a descriptor: {', '.join(known)}")


def middle_of(models: Sequence[str], quantity: str) -> float:
    """Return the middle of the models' classes of a quantity; 3 if they have none."""
    from ...models import card

    found = [d for name in models for d in card.read_card(card.find(name)).descriptors if d.name == quantity]
    known = [value for d in found for value in d.classes]
    return (min(known) + max(known)) / 2 if known and len(models) == 1 else 3.0


def config_text(
    reading: str, origin: str, models: Sequence[str], rule: FirstRule, *, control: str | None, kind: Kind
) -> str:
    """Return a config with comments.

    Parameters
    ----------
    reading : str
        Settings of the source and its fields, YAML, as ``xas-agent inspect`` proposes them.
    origin : str
        The inspected source.
    models : sequence of str
        Models for the element; a single one is named, while the element chooses among several.
    control : str or None
        Address at which the beamline takes requests.
    kind : {"documents", "files", "simulated"}
        Content of the source; ``simulated`` if there is no source.

    Raises
    ------
    ConfigError
        A part is invalid, such as the quantity or the address.
    """
    lines = [
        f"# Settings of xas-agent for {origin}.",
        "# What it would do: xas-agent rules explain FILE. Every key: the reference of the configuration.",
        *_reading(reading, kind),
        "",
        "# The model that turns spectra into descriptors: xas-agent models show NAME.",
        *(
            ["model:", f"  use: [{models[0]}]"]
            if len(models) == 1
            else ["# model:", f"#   use: [{', '.join(models)}]"]
        ),
        "",
        *_rule(rule),
        "",
        *_control(rule, control, kind),
        "",
        "# Tables, documents and pictures go to --out DIR of the run command. They can go elsewhere, too:",
        '# publish: {address: "zmq://HOST:5577"}          # the in-port of a bluesky proxy',
        '# publish: {tiled: "tiled://HOST:8000/PATH"}     # a Tiled catalogue',
        '# publish: {nats: "nats://HOST:4222/xas"}        # a NATS stream, or kafka: "kafka://…"',
        "# notify:                                        # who is told of decisions with the action notify",
        "#   - {command: [notify-send, xas-agent]}",
        "# health: 127.0.0.1:9464                         # how the agent is, for programs",
    ]
    text = "\n".join(lines) + "\n"
    load_config(yaml.safe_load(text))
    return text


def _reading(reading: str, kind: Kind) -> Iterator[str]:
    """Yield the settings of the source, with a comment above each group."""
    if kind == "simulated":
        yield from ("", "# Without a source, xas-agent run simulates a beamline that charges a LixCoO2 cathode.")
        return
    lines = [line for line in reading.splitlines() if not line.startswith("# Settings for ")]
    keys = [line.partition(":")[0] for line in lines]
    if kind == "files":
        yield from (
            "",
            "# The files come from --folder of the run command, and their columns are found by their headings,",
        )
        yield "# or named there: --column ROLE=NAME."
    elif not any(key in keys for key in LIVE):
        yield from ("", "# At the beamline, the documents come from the out-port of its bluesky proxy:")
        yield '# source: {address: "zmq://HOST:5578"}'
    for key, line in zip(keys, lines, strict=True):
        if key in _ABOUT:
            yield ""
            yield from _comment(_ABOUT[key])
        yield line
    if kind == "documents" and "fields" not in keys:
        yield from ("", "# The fields are found by their names. To name them:")
        yield "# fields: {energy: mono_energy, i0: I0, it: It, element: Ni, edge: K}"


def _rule(rule: FirstRule) -> Iterator[str]:
    side, level = ("above", rule.above) if rule.above is not None else ("below", rule.below)
    yield from _comment(
        f"One rule to begin with: {rule.quantity} has been {side} the level for three frames in a row. Try other "
        "levels and triggers on what was measured: xas-agent rules test. All kinds: xas-agent rules triggers."
    )
    yield from ("rules:", f"  - name: {rule.name}", "    trigger:", "      kind: threshold")
    yield from (f"      quantity: {rule.quantity}", f"      {side}: {level:g}", "      dwell_frames: 3")
    yield f"    action: {rule.action}"


def _control(rule: FirstRule, control: str | None, kind: Kind) -> Iterator[str]:
    """Yield the settings of who decides, and of how the experiment is reached."""
    off = rule.authority == "off"
    if rule.action == "notify":
        yield from _comment(
            "The rule only tells, for which it needs no permission. For others, allow their actions; a person then "
            "approves each decision (xas-agent pending, approve)."
        )
        yield from ("control:", "  enabled: false", "  allow: []", "  authority: confirm")
        return
    said = "Switched off: decisions are published as advice. With enabled: true, a" if off else "A"
    yield from _comment(
        f"{said} person approves each decision (xas-agent pending, approve); with authority: act, it is sent at once."
    )
    yield from ("control:", f"  enabled: {str(not off).lower()}", f"  allow: [{rule.action}]")
    yield "  authority: confirm"
    if control is not None:
        key = "queue_server" if control.startswith("tcp://") else "control_endpoint"
        yield from ("", "# Where the beamline takes requests.", f'{key}: {{address: "{control}"}}')
    elif kind == "documents":
        yield from ("", *_comment("Where the beamline takes requests: a RunEngine across ZMQ, or a queue server."))
        yield '# control_endpoint: {address: "ipc:///run/user/1000/control"}'
        yield '# queue_server: {address: "tcp://localhost:60615"}'


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
