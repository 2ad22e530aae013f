"""The files of ``deploy``: what they say parses, and fits the command and the package. Nothing is built here."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from command_lines import parsed
from forked import run_command
from nats_server import Server
from packaging.requirements import Requirement

import xas_agent
from xas_agent.adapters.nats import NATSShared, NATSSource
from xas_agent.app.config import load_config

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.rglob("*.service"))
INSTRUCTIONS = (
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "STOPSIGNAL", "USER",
    "VOLUME", "WORKDIR",
)  # fmt: skip
CONDA_NAMES = {"torch": "pytorch", "msgpack": "msgpack-python", "matplotlib": "matplotlib-base", "pyyaml": "pyyaml"}


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_unit_starts_a_session_that_goes_on(path, tmp_path):
    service = unit(path)["Service"]
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2"
    shell, option, script = shlex.split(service["ExecStart"])
    assert (shell, option) == ("/bin/sh", "-c")
    # the shell's choice between a new folder and one that goes on, with the agent replaced by echo
    script = script.replace("$$", "$").replace("%i", "hutch")
    script = re.sub(r"(?:/var/lib/xas-agent|%h/xas-agent)/hutch", f"{tmp_path}/hutch", script)
    script = re.sub(r"exec \S+/xas-agent ", "exec echo ", script)
    chosen = []
    for _ in range(2):
        said = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout
        words = shlex.split(said)
        params = parsed(words)
        chosen.append("resume" if params["resume"] else "out")
        assert params["config"].endswith("hutch.yaml")
        assert tmp_path / "hutch" in (params["resume"], params["out"])
        (tmp_path / "hutch").mkdir(exist_ok=True)
        (tmp_path / "hutch" / "journal.sqlite").touch()
    assert chosen == ["out", "resume"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_systemd_understands_a_unit(path, tmp_path):
    user = ["--user"] if "user" in path.parts else []
    done = subprocess.run(
        ["systemd-analyze", *user, "verify", path],
        capture_output=True, text=True, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    # A machine without a running systemd of its own (a container) cannot judge user units.
    if "Failed to" in done.stderr and "initialize manager" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stderr == ""
    assert done.returncode == 0


def instructions() -> Iterator[tuple[str, str]]:
    text = (DEPLOY / "container" / "Containerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, rest


def test_the_containerfile_parses():
    found = list(instructions())
    assert {word for word, _ in found} <= set(INSTRUCTIONS)
    assert found[0][0] == "ARG"  # that of FROM
    declared = {rest.partition("=")[0] for word, rest in found if word == "ARG"}
    used = {name for word, rest in found if word != "ENV" for name in re.findall(r"\$\{(\w+)\}", rest)}
    assert used <= declared
    stages = {rest.split(" AS ")[1] for word, rest in found if word == "FROM" and " AS " in rest}
    for word, rest in found:
        if word != "COPY":
            continue
        flags = [part for part in rest.split() if part.startswith("--")]
        sources = [part for part in rest.split() if not part.startswith("--")][:-1]
        if flags:
            assert flags[0].removeprefix("--from=") in stages
        else:
            assert all((ROOT / source).exists() for source in sources)
    extras = next(rest for word, rest in found if rest.startswith("EXTRAS=")).partition("=")[2]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert yaml.safe_load(next(rest for word, rest in found if word == "ENTRYPOINT")) == ["xas-agent"]
    parsed(yaml.safe_load(next(rest for word, rest in found if word == "CMD")))


@pytest.mark.parametrize(("compose", "config"), [("compose", "agent"), ("compose-nats", "agent-nats")])
def test_the_compose_file_runs_commands_that_exist(compose, config):
    content = yaml.safe_load((DEPLOY / "container" / f"{compose}.yaml").read_text(encoding="utf-8"))
    services = content["services"]
    for service in services.values():
        if service["image"] == "xas-agent":
            parsed(service["command"])
        elif script := [word for word in service.get("command", ()) if " " in word and service["command"][0] == "sh"]:
            subprocess.run(["sh", "-n", "-c", *script], check=True)
        assert all(other in services for other in service.get("depends_on", ()))
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            there = (
                (DEPLOY / "container" / source).is_file() if source.startswith("./") else source in content["volumes"]
            )
            assert there, volume
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")  # nothing is open to other machines
    built = services["beamline"]["build"]
    assert (DEPLOY / "container" / built["context"] / built["dockerfile"]).resolve().is_file()
    assert f"./{config}.yaml:/etc/xas-agent.yaml:ro" in services["agent"]["volumes"]
    settings = load_config(DEPLOY / "container" / f"{config}.yaml")
    assert not settings.control.enabled
    source = settings.source or settings.shared
    assert source is not None
    host, port = re.match(r"\w+://(\w+):(\d+)", source.address).groups()  # pyright: ignore
    assert host in services
    assert f":{port}" in str(services["beamline"]["command"])


@pytest.mark.slow
def test_the_chain_over_nats_answers_what_the_beamline_published(tmp_path, monkeypatch):
    """As the compose file has it, without its containers and catalogue."""
    monkeypatch.setenv("NATS_PASSWORD", "a secret of my own")
    server = Server(tmp_path, "--auth", "a secret of my own")
    script = yaml.safe_load((DEPLOY / "container" / "compose-nats.yaml").read_text())["services"]["streams"][
        "command"
    ]
    for name, subject in re.findall(r"stream add (\w+) --subjects '(\w+)\.>'", script[-1]):
        server.make_stream(name, subject)
    settings = load_config(DEPLOY / "container" / "agent-nats.yaml")
    assert settings.nats is not None
    assert settings.publish is not None
    assert settings.publish.nats is not None
    config = tmp_path / "agent.yaml"
    text = (DEPLOY / "container" / "agent-nats.yaml").read_text()
    config.write_text(text.replace("nats://nats:4222", server.address).replace("  tiled: tiled://tiled:8000\n", ""))
    run_command("sim", "--publish", f"{server.address}/{settings.nats.subject}", "--frames", 5, "--period", 0)
    run_command("run", "--config", config, "--out", tmp_path / "night1", "--frames", 5)
    answers = NATSShared(address=f"{server.address}/{settings.publish.nats.subject}", group="reader", begin="all")
    streams, counts = {}, Counter()
    with closing(NATSSource(answers)) as source:
        for name, doc in source:
            if name == "descriptor":
                streams[doc["uid"]] = doc["name"]
            counts[streams.get(doc.get("descriptor"), name)] += 1
            if name == "stop":
                break
        source.release()
    server.kill()
    assert counts["descriptors"] == counts["spectra"] == 5


def test_the_recipe_requires_what_the_package_requires():
    content = yaml.safe_load((DEPLOY / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {
        CONDA_NAMES.get(r.name.lower(), r.name.lower()): str(r.specifier)
        for r in map(Requirement, project["dependencies"])
    }
    run = dict(line.partition(" ")[::2] for line in content["requirements"]["run"])
    assert run.pop("python") == ">=${{ python_min }}"
    assert run == required
    assert content["context"]["version"] == xas_agent.__version__
    [script] = content["build"]["python"]["entry_points"]
    assert script == " = ".join(next(iter(project["scripts"].items())))
    for line in next(test["script"] for test in content["tests"] if "script" in test):
        words = shlex.split(line)[1:]
        if not words[0].startswith("--"):
            parsed(words)
