"""The reference is generated from the code and leaves nothing out."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from xas_agent.agent.decide import PARTS
from xas_agent.agent.types import described_fields
from xas_agent.agent.types.reasons import Flag, Reason
from xas_agent.app.commands.shared import EXIT_CODES
from xas_agent.app.config import Config
from xas_agent.app.jobs.keys import TRIGGERS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "reference"
GEN = ROOT / "docs" / "gen"


def load(name):
    spec = importlib.util.spec_from_file_location(name, GEN / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


settings_tables = load("settings_tables")
load("notebooks")
reference = load("reference")


def page(name):
    return reference.filled((PAGES / f"{name}.md").read_text(encoding="utf-8"))


def models():
    pytest.importorskip("sklearn")
    from xas_agent.app.jobs.evaluate import EvaluationConfig
    from xas_agent.models.datasets import FeffSettings, QuenchSettings
    from xas_agent.models.training import TrainingConfig

    pages = ("configuration", "training-configuration", "evaluation-configuration", "feff-data", "feff-data")
    return zip(pages, (Config, TrainingConfig, EvaluationConfig, FeffSettings, QuenchSettings), strict=True)


def test_every_key_of_a_config_is_listed_with_its_meaning():
    for name, model in models():
        text = page(name) + page("training-configuration")  # which evaluation refers to
        for path, field, owner in settings_tables.keys(model, elsewhere=TRIGGERS):
            assert field.description, f"{owner.__name__}.{path}: no docstring under the field"
            assert f"| `{path.rpartition('.')[2]}` |" in text, path


def test_a_key_states_type_default_and_unit():
    text = page("configuration")
    assert re.search(r"\| `max_gap_ev` \| number \| `8.0` \| eV \| Widest gap", text)
    assert re.search(r"\| `latency_budget_ms` \| number, ≥ 0 \| `20.0` \| ms \|", text)
    assert re.search(r"\| `address` \| text \| required \|", text)


def test_every_reason_and_flag_is_listed():
    text = page("reasons")
    for member in (*Reason, *Flag):
        assert f"| `{member.value}` | {member.meaning} | {member.remedy} |" in text


def test_every_exit_code_has_a_remedy_in_the_reference_and_in_the_help(xa):
    text, shown = page("command-line"), " ".join(xa("--help").stdout.split())
    assert set(EXIT_CODES) == {0, 1, 2, 3, 4, 130, 143}
    for code, (meaning, remedy) in EXIT_CODES.items():
        assert remedy
        assert f"| {code} | {meaning} | {remedy} |" in text
        assert f"{code} {meaning} {remedy}".replace("`", "") in shown


def test_every_command_is_listed_with_its_options():
    text = page("command-line")
    names = [name for name, _ in reference.commands()]
    assert "xas-agent dataset feff" in names
    for name, command in reference.commands():
        assert f"## `{name}`" in text
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or option == "--help" or f"`{option}`" in text
    assert "| 4 |" in text


def test_every_published_key_has_a_meaning():
    published = reference.published()
    assert set(published) == {"descriptors", "spectra", "measured", "decisions", "quality"}
    missing = [k for keys in published.values() for k in keys if not reference.DOCUMENT_KEYS.get(k)]
    assert not missing


def markers():
    pages = {p: p.read_text(encoding="utf-8") for p in (ROOT / "docs").rglob("*.md")}
    return [(page, *found) for page, text in pages.items() for found in reference.MARKER.findall(text)]


def test_every_marker_names_what_is_generated():
    opened = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs").rglob("*.md")).count("<!-- generated: ")
    assert len(markers()) == opened
    assert {name for _, name, _ in markers()} == set(reference.GENERATED)


def test_a_page_that_is_read_as_it_is_says_where_the_generated_part_is():
    names = [name for name, _ in reference.commands()]
    for page, name, pointer in markers():
        assert "`make docs`" in pointer, name
        assert all((page.parent / link).exists() for link in re.findall(r"\]\((.*?)\)", pointer)), name
        for command in re.findall(r"`(xas-agent [a-z ]*[a-z])", pointer):
            assert any(name == command or command.startswith(f"{name} ") for name in names[1:]), command
        shown = re.findall(r"`python docs/gen/reference.py (.*?)`", pointer.replace("\n", " "))
        assert shown in ([], [str(page.relative_to(ROOT))]), name


def test_a_page_is_printed_with_what_is_generated():
    command = [sys.executable, "docs/gen/reference.py", "docs/reference/reasons.md"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == page("reasons")
    assert "generated" not in said


def test_every_trigger_is_listed_with_its_keys():
    sections = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", page("rules"), re.MULTILINE | re.DOTALL))
    assert {"threshold", "plateau", "not", "then"} <= set(sections)
    for trigger in TRIGGERS:
        text = sections[trigger.model_fields["kind"].default]
        assert all(field.description and f"| `{key}` |" in text for key, field in described_fields(trigger).items())


def test_triggers_within_a_trigger_have_a_readable_type():
    assert "| `of` | list of [trigger](rules.md#triggers), at least 2 | required |" in page("rules")
    assert "| `trigger` | [trigger](rules.md#triggers) | required |" in page("configuration")
    assert "| `reasons` | list of [reason](reasons.md#reasons) |" in page("rules")


def test_every_example_of_a_rule_is_shown():
    shown = page("rule-examples")
    assert all(path.read_text(encoding="utf-8") in shown for path in reference.EXAMPLES.glob("*.yaml"))


def test_every_part_of_a_descriptor_is_listed():
    assert all(f"`OS_{part}`" in page("rules") for part in PARTS)


def test_a_site_that_loads_something_from_elsewhere_is_not_built(tmp_path):
    """``make docs`` builds it, and CI runs this."""
    exceptions = pytest.importorskip("mkdocs.exceptions")
    hooks = load("hooks")
    with pytest.raises(exceptions.PluginError, match="no page in"):
        hooks.on_post_build({"site_dir": tmp_path})
    (tmp_path / "page").mkdir()
    page = tmp_path / "page" / "index.html"
    named = '<link rel="canonical" href="https://site.example/page/"><a href="https://pypi.org">PyPI</a>'
    page.write_text(f'{named}<img src="plot.png">', encoding="utf-8")
    hooks.on_post_build({"site_dir": tmp_path})
    for url in ("https://cdn.example/x.js", "//cdn.example/canonical.js"):
        page.write_text(f'{named}<script async src="{url}"></script>', encoding="utf-8")
        with pytest.raises(exceptions.PluginError, match=rf"index\.html loads {re.escape(url)}: keep"):
            hooks.on_post_build({"site_dir": tmp_path})


PAGES_OF_TODAY = [p for p in sorted((ROOT / "docs").rglob("*.md")) if p.parent.name != "decisions"]


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES_OF_TODAY], ids=lambda p: p.name)
def test_files_that_a_page_names_exist(path):
    folders = "agent|app|adapters|models|sim_beamline|configs|tests|benchmarks|docs"
    named = set(re.findall(rf"(?<!-)\b(?:{folders})/[\w/.-]*\w", path.read_text(encoding="utf-8")))
    assert not [n for n in sorted(named) if not (ROOT / n).exists() and "NAME" not in n]
