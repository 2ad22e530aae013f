"""The reference, generated from the code: each function returns Markdown for one marker in a page.

    python docs/gen/reference.py docs/reference/rules.md

prints a page with all that the markers stand for.
"""

import inspect
import json
import math
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import notebooks
import typer
from settings_tables import config_table, robot_actions, robot_status, rule_triggers, table

from xas_agent.agent.publish import AgentRun, Provenance
from xas_agent.agent.types import Decision, DescriptorEstimate, Estimate, Frame, Lines, SetAside
from xas_agent.agent.types.reasons import Flag, Reason
from xas_agent.app.commands.examples import EXAMPLES as LINES
from xas_agent.app.commands.shared import EXIT_CODES
from xas_agent.app.jobs.keys import TRIGGERS, type_name
from xas_agent.app.jobs.shards import tables_of

DECISIONS = Path(__file__).parents[1] / "decisions"
EXAMPLES = Path(__file__).parents[2] / "configs" / "decisions"
DOCUMENT_KEYS = {
    "D": "Most probable value of a classified descriptor D.",
    "D_p": "Probability of this value.",
    "D_mean": "Expectation of a classified descriptor, or value of a regressed one.",
    "D_lo": "Lower end of the 90 % interval of `D_mean`.",
    "D_hi": "Upper end of the 90 % interval of `D_mean`.",
    "D_sd_frame": "Standard deviation by which `D_mean` scatters when the same sample is measured again.",
    "ood_score": "Out-of-distribution score; above 1 the spectrum is unlike the training spectra.",
    "e0_ev": "Calibrated E0.",
    "edge_step": "Edge step of the measured μ.",
    "noise": "σ of the noise per point, relative to the edge step.",
    "latency_ms": "Time from the frame's last datum to its estimate.",
    "frame_uid": "uid of the frame.",
    "frame_seq_num": "Number of the frame in the watched run, from 1. `quality`: 0 without a frame.",
    "frame_time": "Time of the frame's last datum, Unix s.",
    "sample": "Name of the sample; empty if the documents name none.",
    "scan_id": "Number of the scan at the beamline; 0 if it has none.",
    "file": "Name of the scan's file; empty if the documents name none.",
    "element": "Absorber.",
    "flags": "[Flags](reasons.md#flags) of the frame, separated by commas.",
    "energy_shift_ev": "Shift added to the measured energies.",
    "foil_shift_ev": "Part of the shift that the reference foil determined.",
    "energy_sd_ev": "Standard deviation of the measured energies.",
    "energy_sd_frame_ev": "Its part that differs from frame to frame; 0 without a foil.",
    "extrapolated_ev": "How far the grid extends beyond the measured energies.",
    "pre_edge_slope": "Slope of the pre-edge line.",
    "post_edge_order": "Order of the post-edge polynomial.",
    "glitches": "Number of points that the alignment repaired as glitches.",
    "self_absorption_damping": "Fraction of a small feature's amplitude that self-absorption leaves.",
    "(readings)": "Each scalar that came with the frame, under its own name (`.` and `/` become `_`).",
    "spectrum": "Aligned spectrum on the model's grid, NaN beyond the end of a short scan; the descriptor's "
    "configuration holds the energies.",
    "D_probabilities": "Probabilities of the classes of D, those of `D_classes` in the descriptor's configuration.",
    "energy": "Energies of the monochromator, before their calibration.",
    "mu": "Absorption as measured, at these energies.",
    "e0_measured_ev": "E0 on these energies.",
    "reference": "Absorption of the reference foil; only with one.",
    "reference_e0_ev": "E0 of the foil on the same energies, as its calibration has it; NaN without one.",
    "line_energy": "Some of the energies, at which the two curves are given.",
    "pre_edge": "Pre-edge line that the normalisation subtracts.",
    "post_edge": "Post-edge curve; above the pre-edge line by the edge step at E0.",
    "id": "Identifies the decision; the events of one decision share it.",
    "rule": "Name of the rule.",
    "action": "Requested action.",
    "args": "Arguments of the action, JSON.",
    "reason": "`decisions`: the evidence in words, with units. `quality`: a [reason](reasons.md#reasons).",
    "evidence": "Pairs of frame uid and value, JSON.",
    "confidence": "Probability that the rule's condition holds.",
    "status": "`proposed`, `approved`, `sent`, `acknowledged`, `rejected` or `expired`.",
    "status_reason": "Why the status is what it is.",
    "status_time": "Time at which the decision came to the status, Unix s.",
    "by": "Person who brought it to the status; empty if nobody did.",
    "uid": "uid of the frame or event that was set aside.",
    "detail": "What was found and what was expected.",
    "count": "Number of frames, else of documents or Events, for which the note stands.",
}


def agent_config() -> str:
    from xas_agent.app.config import Config

    return config_table(Config, TRIGGERS)


def training_config() -> str:
    from xas_agent.models.training import TrainingConfig

    return config_table(TrainingConfig)


def evaluation_config() -> str:
    from xas_agent.app.jobs.evaluate import EvaluationConfig
    from xas_agent.models.training import Augmentation, TrainingConfig

    return config_table(EvaluationConfig, (TrainingConfig, Augmentation))


def feff_config() -> str:
    from xas_agent.models.datasets import FeffSettings

    return config_table(FeffSettings)


def quench_config() -> str:
    from xas_agent.models.datasets import QuenchSettings

    return config_table(QuenchSettings)


def rule_examples() -> str:
    """The shipped examples of rules, as they are."""
    files = sorted(EXAMPLES.glob("*.yaml"))
    return "\n\n".join(f"## {f.stem}\n\n```yaml\n{f.read_text(encoding='utf-8')}```" for f in files)


def actions() -> str:
    """The actions that a rule may request and the statuses of a decision."""
    from xas_agent.agent.types import Action, Status

    names = ", ".join(f"`{a}`" for a in get_args(Action))
    return f"Actions: {names}.\n\nStatuses of a decision: {', '.join(f'`{s}`' for s in get_args(Status))}."


def robot_schema() -> str:
    """The JSON schemas of a robot's requests and answers."""
    from xas_agent.adapters.robot import json_schemas

    blocks = [
        f"### {n}\n\n```json\n{json.dumps(s, indent=2, ensure_ascii=False)}\n```" for n, s in json_schemas().items()
    ]
    return "\n\n".join(blocks)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    from xas_agent.cli import app

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        inner = getattr(command, "commands", {})
        for child in command.list_commands(None) if inner else ():
            yield from walk(f"{name} {child}", inner[child])

    yield from walk("xas-agent", typer.main.get_command(app))


def command_line() -> str:
    """Every command with its arguments and options."""
    parts = []
    for name, command in commands():
        parts.append(f"## `{name}`")
        parts.append(" ".join((command.help or "").split("\f")[0].replace("\n\n", " <br> ").split()))
        context = typer.Context(command, info_name=name)
        parts.append(f"```text\n{name} {' '.join(command.collect_usage_pieces(context))}\n```")
        if lines := LINES.get(name.removeprefix("xas-agent ")):
            said = "\n".join(f"{line}  # {about}" if about else line for line, about in lines)
            parts.append(f"```text\n{said}\n```")
        hints = typing.get_type_hints(inspect.unwrap(command.callback)) if command.callback else {}
        shown = [p for p in command.params if p.name != "help" and "--help" not in p.opts]
        if shown:
            rows = [_parameter(p, hints.get(p.name), context) for p in shown]
            parts.append(table(("Argument or option", "Type", "Default", "Meaning"), rows))
    return "\n\n".join(parts)


def _parameter(parameter: Any, annotation: Any, context: Any) -> tuple[str, ...]:
    option = parameter.param_type_name == "option"
    names = (*parameter.opts, *parameter.secondary_opts) if option else (parameter.metavar or parameter.name.upper(),)
    text = parameter.help or ""
    default = parameter.default
    if stated := re.search(r"\s*\[default: (.*)\]", text):
        shown = stated[1]
    elif parameter.required:
        shown = "required"
    else:
        shown = (
            ""
            if default in (None, (), False) or callable(default)
            else f"`{str(default).lower() if default is True else default}`"
        )
    text = re.sub(r"\s*\[default: .*\]", "", text).replace("[", r"\[")  # no link
    return ", ".join(f"`{n}`" for n in names), type_name(annotation).replace("true or false", "flag"), shown, text


def exit_codes() -> str:
    return table(("Code", "Meaning", "What to do"), [(str(c), *texts) for c, texts in EXIT_CODES.items()])


def quantities_of_alignment() -> Iterable[str]:
    """The quantities that the alignment of any spectrum gives; self-absorption adds one where it is corrected."""
    import numpy as np

    from xas_agent.agent.spectra import AlignmentSettings, Batch, align
    from xas_agent.agent.types import Edge, Grid

    energy = np.arange(7560.0, 7900.0)
    mu = np.arctan(energy - 7712.0)[None]
    grid = Grid(-9.0, 82.0, 1.0, (-9.0, -6.0), (62.0, 82.0))
    return align(Batch(energy, mu), grid, Edge(7709.0), AlignmentSettings()).quantities


def published() -> dict[str, dict[str, dict[str, Any]]]:
    """The data keys of every stream, as the agent publishes them for one descriptor ``D`` of either kind."""
    described: dict[str, dict[str, dict[str, Any]]] = {}

    def collect(name: str, doc: dict[str, Any]) -> None:
        if name == "descriptor":
            described[doc["name"]] = doc["data_keys"]

    import numpy as np

    frame = Frame("u", "r", 1, 0.0, np.arange(3.0), np.arange(3.0), np.arange(3.0))
    estimate = Estimate({"D": DescriptorEstimate(0.0, 0.0, 0.0, 0.0, 1.0, {"1": 1.0})}, 0.0)
    lines = Lines(np.zeros(3), np.ones(3), 0.0, 0.0)
    names = [*quantities_of_alignment(), "self_absorption_damping"]
    run = AgentRun({"uid": "r", "time": 0.0}, Provenance("MODEL", "", ""), collect)
    run.frame(frame, dict.fromkeys(names, math.nan), estimate, np.zeros(3), 0.0, lines)
    run.decision(Decision("i", "rule", "notify", "", "r", 0.0, 1.0, ()))
    run.set_aside(SetAside("r", "u", 0.0, Reason.LATE))
    return described


def documents() -> str:
    """Streams and keys of the agent's documents."""
    parts = []
    for stream, data_keys in published().items():
        rows = [
            (f"`{k}`", str(v["dtype"]), str(v.get("units") or ""), DOCUMENT_KEYS.get(k, ""))
            for k, v in data_keys.items()
        ]
        if stream == "descriptors":
            rows.append(("(readings)", "number", "of the reading", DOCUMENT_KEYS["(readings)"]))
        parts += [f"### `{stream}`", table(("Key", "Type", "Unit", "Meaning"), rows)]
    return "\n\n".join(parts)


def api() -> str:
    """The endpoints of the dashboard, from their description in OpenAPI, and the fields of their answers."""
    from xas_agent.app.view.access import Access
    from xas_agent.app.view.server import create_app
    from xas_agent.app.view.sessions import Sessions

    described = create_app(Sessions([]), Access("127.0.0.1", "")).openapi()
    endpoints, used = [], []
    for path, methods in described["paths"].items():
        for method, about in methods.items():
            given = [p["name"] for p in about.get("parameters", ()) if p["in"] == "query"]
            query = f"?{'&'.join(f'{name}=' for name in given)}" if given else ""
            content = about["responses"]["200"].get("content", {}).get("application/json", {}).get("schema", {})
            name = (content.get("items") or content).get("$ref", "").rpartition("/")[2]
            used += [name] if name else []
            answer = f"[{name}](#{name.lower()})" if name else "events"
            text = " ".join(about["description"].replace("``", "`").split())
            endpoints.append(
                (f"`{method.upper()} {path}{query}`", answer + (", a list" * ("items" in content)), text)
            )
    parts = [table(("Endpoint", "Answer", "Meaning"), endpoints)]
    for name, schema in described["components"]["schemas"].items():
        if name.startswith(("HTTP", "Validation")):
            continue
        rows = [
            (f"`{key}`", _json_type(about), about.get("description", ""))
            for key, about in schema["properties"].items()
        ]
        parts += [f"### {name}", schema.get("description", ""), table(("Key", "Type", "Meaning"), rows)]
    return "\n\n".join(parts)


def _json_type(schema: dict[str, Any]) -> str:
    """Return the type of a value in words."""
    if "anyOf" in schema:
        return " or ".join(map(_json_type, schema["anyOf"]))
    if ref := schema.get("$ref", "").rpartition("/")[2]:
        return f"[{ref}](#{ref.lower()})"
    if schema.get("type") == "array":
        return f"list of {_json_type(schema.get('items', {}))}"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    return schema.get("type", "any")


def reasons() -> str:
    return table(("Reason", "Meaning", "What to do"), [(f"`{r.value}`", r.meaning, r.remedy) for r in Reason])


def flags() -> str:
    return table(("Flag", "Meaning", "What to do"), [(f"`{f.value}`", f.meaning, f.remedy) for f in Flag])


def decision_records() -> str:
    """The titles of the decision records, linked."""
    titles = [(p.name, p.read_text(encoding="utf-8").partition("\n")[0]) for p in sorted(DECISIONS.glob("0*.md"))]
    return "\n".join(f"- [{title.removeprefix('# ')}]({name})" for name, title in titles)


def feff_rows() -> str:
    return tables_of(DECISIONS.parents[1] / "data" / "feff")


def first_notebook() -> str:
    return notebooks.page(DECISIONS.parent / "tutorials" / "first-notebook.ipynb")


GENERATED: dict[str, Callable[[], str]] = {
    "command line": command_line,
    "exit codes": exit_codes,
    "agent config": agent_config,
    "training config": training_config,
    "evaluation config": evaluation_config,
    "FEFF config": feff_config,
    "FEFF rows": feff_rows,
    "quench config": quench_config,
    "triggers": rule_triggers,
    "rule examples": rule_examples,
    "actions": actions,
    "robot actions": robot_actions,
    "robot answers": robot_status,
    "robot schema": robot_schema,
    "documents": documents,
    "api": api,
    "reasons": reasons,
    "flags": flags,
    "decisions": decision_records,
    "first notebook": first_notebook,
}
"""What ``<!-- generated: NAME -->`` in a page becomes."""


MARKER = re.compile(r"<!-- generated: (.*?) -->\n(.*?)<!-- end -->", re.DOTALL)
"""A marker, and what stands in its place where a page is read as it is."""


def filled(markdown: str) -> str:
    """A page with its markers replaced."""
    return MARKER.sub(lambda m: GENERATED[m[1]](), markdown)


if __name__ == "__main__":
    for page in sys.argv[1:]:
        sys.stdout.write(filled(Path(page).read_text(encoding="utf-8")))
