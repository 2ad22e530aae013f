"""Describes rules in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

from ..agent.decide import (
    AllOf,
    AnyOf,
    Band,
    Change,
    Extremum,
    FramesSetAside,
    NotOf,
    Plateau,
    Quiet,
    Rate,
    Rule,
    Then,
    Threshold,
    Trigger,
    Undecided,
    Unfamiliar,
)
from .config import Config

_COMMON = {"all": "all errors of an estimate", "frame": "the scatter of repeats"}


def explain(rule: Rule, units: Mapping[str, str]) -> str:
    """Return a rule as a sentence: which action it requests, when, and how often.

    Parameters
    ----------
    units : units of the quantities, by name
    """
    times = "once" if rule.max_times == 1 else f"at most {rule.max_times} times"
    absorber = " ".join(filter(None, (rule.element, rule.edge and rule.edge)))
    where = [f"for {absorber}"] if absorber else []
    where += [f"in stage {rule.stage}"] if rule.stage else []
    begin = f"{' '.join(where)}, the agent" if where else "the agent"
    following = f" Stage {rule.go_to} follows." if rule.go_to else ""
    action = f"{rule.action}{_arguments(rule.args)}"
    said = f"{begin} requests {action}, {times} per run, when {in_words(rule.trigger, units)}.{following}"
    return said[0].upper() + said[1:]


def consequences(rule: Rule, config: Config) -> Iterator[str]:
    """Yield sentences on what happens to the decisions of a rule."""
    action, control = rule.action, config.control
    if action == "notify":
        yield _told(config)
        return
    authority = control.authority_for(action)
    if not control.enabled:
        yield "Advice only: control.enabled is false."
    elif authority == "advise":
        key = "authority_of" if action in control.authority_of else "authority"
        yield f"Advice only, by control.{key}."
    if action not in control.allow:
        would = "It would be rejected" if authority != "advise" else "If it were sent, it would be rejected"
        yield f"{would}: control.allow lacks {action}."
    elif action == "set":  # a config that allows the action has a range for it
        least, most = control.settable[rule.args["signal"]]
        yield f"control.settable lets {rule.args['signal']} be set to {least:g} … {most:g}."
    if (limit := control.limits.get(action)) is not None:
        bounds = [f"{n} per {of}" for n, of in ((limit.per_run, "run"), (limit.per_hour, "hour")) if n is not None]
        if bounds:
            yield f"Of all rules together, at most {' and '.join(bounds)} of {action} are sent."
    if authority == "confirm" and action in control.allow:
        yield f"A person must approve it within {control.confirm_within_s:g} s."
    elif authority == "act" and action in control.allow:
        yield "It is sent at once."


def _told(config: Config) -> str:
    """Return a sentence on who receives a notification."""
    if config.simulation is not None:  # simulated experiments do not use destinations
        return "Told: the crew of the simulated beamline."
    if config.notify:
        return f"Told: {', '.join(destination.name for destination in config.notify)}."
    return "Nobody is told: the config names no destination (it is logged and published)."


def _arguments(args: Mapping[str, Any]) -> str:
    """Return the arguments of an action in brackets."""
    return f" ({', '.join(f'{name}: {value}' for name, value in args.items())})" if args else ""


def in_words(trigger: Trigger, units: Mapping[str, str]) -> str:
    """Return a condition as the part of a sentence that follows "when"."""

    def unit(quantity: str) -> str:
        return f" {units[quantity]}" if units.get(quantity) else ""

    match trigger:
        case Threshold() | Band() | Unfamiliar():
            return f"{trigger.quantity} is {trigger.bar(unit(trigger.quantity))}{_judged(trigger)}"
        case Plateau():
            u = unit(trigger.quantity)
            window = f"{trigger.duration_s:g} s" if trigger.duration_s else f"{trigger.frames} frames"
            within = f"by at most {trigger.tolerance:g}{u} in {window}"
            return f"{trigger.quantity} changes {within}, with a probability of {trigger.min_confidence:g}"
        case Rate():
            above, u = trigger.above_per_hour, unit(trigger.quantity)
            bar = f"more than {above:g}{u}/h" if above is not None else f"less than {trigger.below_per_hour:g}{u}/h"
            line = f"by a line through {trigger.window_frames} frames"
            return f"{trigger.quantity} changes by {bar}, {line}, with a probability of {trigger.min_confidence:g}"
        case Extremum():
            passed = f"has passed a {trigger.of} by {trigger.drop:g}{unit(trigger.quantity)}"
            return f"{trigger.quantity} {passed}, by a line through {trigger.window_frames} frames"
        case Change():
            alarms = f"with at most one false alarm in {trigger.false_alarm_frames:g} frames"
            return f"{trigger.quantity} has left the {trigger.baseline} that it followed, {alarms}"
        case Undecided():
            longer = f"and counting at most {trigger.max_factor:g} times longer would tell"
            return f"the scatter of a frame leaves open whether {in_words(trigger.of, units)}, {longer}"
        case FramesSetAside():
            reasons = f" for {' or '.join(map(repr, map(str, trigger.reasons)))}" if trigger.reasons else ""
            frames = f"{trigger.frames} frames" if trigger.frames > 1 else "a frame"
            are = "are" if trigger.frames > 1 else "is"
            return f"{frames} within {trigger.within_s:g} s {are} set aside or missing{reasons}"
        case Quiet():
            return f"no frame comes for {trigger.seconds:g} s"
        case AllOf():
            return _joined("and", [_nested(part, units) for part in trigger.of])
        case AnyOf():
            return _joined("or", [_nested(part, units) for part in trigger.of])
        case NotOf():
            return f"it is not true that {_nested(trigger.of, units)}"
        case Then():
            within = f", all within {trigger.within_s:g} s" if trigger.within_s else ""
            return ", and then ".join(_nested(part, units) for part in trigger.of) + within
        case _:
            assert_never(trigger)


def _joined(word: str, clauses: Sequence[str]) -> str:
    """Join clauses; a comma precedes the word if the clause before contains a comma."""
    commas = ["," if "," in clause and not clause.endswith(")") else "" for clause in clauses]
    between = [f"{comma} {word} " for comma in commas[:-1]]
    return "".join(part for pair in zip(clauses, [*between, ""], strict=True) for part in pair)


def _nested(trigger: Trigger, units: Mapping[str, str]) -> str:
    words = in_words(trigger, units)
    return f"({words})" if isinstance(trigger, AllOf | AnyOf | Then) else words


def _judged(trigger: Threshold | Band | Unfamiliar) -> str:
    parts = [""]
    if trigger.dwell_frames > 1:
        parts.append(f"for {trigger.dwell_frames} frames in a row")
    if trigger.dwell_s:
        parts.append(f"for {trigger.dwell_s:g} s")
    if trigger.window_frames > 1:
        parts.append(f"by a line through {trigger.window_frames} frames")
    if trigger.min_confidence > 0.5:
        parts.append(f"with a probability of {trigger.min_confidence:g} by {_COMMON[trigger.uncertainty]}")
    if trigger.hysteresis:
        parts.append(f"until it is back by {trigger.hysteresis:g}")
    return ", ".join(parts)
