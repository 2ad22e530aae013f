"""What the command says of itself: every help fits a terminal, has examples that parse, and exit codes."""

import os
import shlex
import subprocess
import sys

import pytest
import typer
from command_lines import COMMANDS, parsed
from forked import run_command

from xas_agent.app.commands.examples import EXAMPLES, exit_codes_of
from xas_agent.app.commands.shared import EXIT_CODES
from xas_agent.cli import START


def test_every_command_has_examples_and_no_other_has():
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_what_the_parser_takes(name):
    for line, _ in EXAMPLES[name]:
        if line.startswith("#"):
            continue
        words = shlex.split(line.partition(" > ")[0])
        assert words[: len(name.split()) + 1] == ["xas-agent", *name.split()]
        parsed(words[1:])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal_and_ends_with_examples_and_exit_codes(name):
    shown = COMMANDS[name].get_help(
        typer.Context(COMMANDS[name], info_name=name, terminal_width=80, max_content_width=80)
    )
    assert max(map(len, shown.splitlines())) <= 80
    for line, about in EXAMPLES[name]:
        assert line in shown
        assert about in shown
    codes = [f"{code:<4} {meaning}" for code, meaning in exit_codes_of(name).items()]
    assert [line.strip() for line in shown.splitlines()][-len(codes) :] == codes
    assert set(exit_codes_of(name)) <= set(EXIT_CODES)
    assert "Example: " not in shown  # they stand in EXAMPLES alone


def test_without_arguments_it_shows_the_way_in():
    shown = run_command().stdout
    assert shown == START
    lines = shown.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) < 80
    for line in lines:
        if "xas-agent " in line and line.startswith("  "):
            words = line.split("  ")[1].split()
            assert words[1].startswith("--") or words[1] in {name.split()[0] for name in COMMANDS}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["xas-agent", "ali"], "align"),
        (["xas-agent", "models", "ver"], "verify"),
        (["xas-agent", "run", "--con"], "--config --connect-timeout --control-secret"),
        (["xas-agent", "run", "--model", "ni"], "ni-k"),
        (["xas-agent", "run", "--preset", "b"], "bmm"),
        (["xas-agent", "run", "--config", "stories/pl"], "stories/plateau"),
        (["xas-agent", "models", "show", "cu"], "cu-k"),
        (["xas-agent", "init", "--authority", "c"], "confirm"),
    ],
)
def test_bash_completes(words, expected, tmp_path):
    """The script that the command gives to bash, in bash."""
    program = f"#!{sys.executable}\nimport sys\nsys.argv[0] = 'xas-agent'\nfrom xas_agent.cli import app\napp()\n"
    (tmp_path / "xas-agent").write_text(program)
    (tmp_path / "xas-agent").chmod(0o755)
    script = (
        "source <(_XAS_AGENT_COMPLETE=source_bash xas-agent)\n"
        f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}\n"
        "_xas_agent_completion xas-agent\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.split() == expected.split()
