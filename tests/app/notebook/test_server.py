"""``xas-agent serve``: the answers of ``infer``, from a server whose models stay loaded."""

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import command, run_command

from xas_agent.agent.types import InputError
from xas_agent.app.ask import exchange
from xas_agent.app.config import load_config
from xas_agent.app.notebook import InferenceServer

E = np.linspace(7560.0, 8300.0, 600)
MU = 0.3 - 2e-4 * (E - 7709) + 1 / (1 + np.exp(-(E - 7720.0) / 1.5)) + 0.3 * np.exp(-(((E - 7726.0) / 4) ** 2))
CONFIG = load_config({"model": {"use": ["co-k"]}})
LONGEST_S = 60.0


def write(path: Path, mu: np.ndarray = MU) -> Path:
    path.write_text("# energy mu\n" + "".join(f"{e:.3f} {m:.6f}\n" for e, m in zip(E, mu, strict=True)))
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InferenceServer]:
    made = InferenceServer(CONFIG, tmp_path / "s")
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.stop()
    thread.join()
    made.close()
    assert not made.path.exists()


def ask(server: InferenceServer, **request: Any) -> dict[str, Any]:
    return exchange(server.path, {"command": "infer", **request}, LONGEST_S, 2**28)


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_the_command_prints_what_it_prints_without_a_server(server, tmp_path, form):
    files = [write(tmp_path / "good.dat"), write(tmp_path / "bad.dat", np.where(E > 8000, np.nan, MU))]
    (tmp_path / "empty.dat").touch()
    files.append(tmp_path / "empty.dat")
    asked = ["infer", *files, "--format", form, "--strict"]
    alone = run_command(*asked, "--model", "co-k", code=4)
    served = run_command(*asked, "--socket", server.path, code=4)
    assert served.stdout == alone.stdout
    for line in ("1 file refused:", "1 of 2 spectra set aside:"):
        assert line in served.stderr
        assert line in alone.stderr


def test_asking_loads_nothing_heavy(server, tmp_path):
    asked = ["infer", str(write(tmp_path / "good.dat")), "--socket", str(server.path)]
    code = (
        "import sys; from xas_agent.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print(sorted({'torch', 'numpy', 'scipy'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True, timeout=LONGEST_S)
    assert "good.dat:0" in done.stdout
    assert done.stderr.strip() == "[]"


def test_arrays_have_the_rows_of_files(server, tmp_path):
    [of_file] = ask(server, files=[str(write(tmp_path / "a.dat"))])["rows"]
    [first, second] = ask(server, energy=E.tolist(), mu=[MU.tolist(), (2 * MU).tolist()], sample="LCO")["rows"]
    assert first["sample"] == second["sample"] == "LCO"
    assert first["OS"]["mean"] == pytest.approx(of_file["OS"]["mean"], abs=1e-3)
    assert second["OS"]["mean"] == pytest.approx(first["OS"]["mean"], abs=1e-3)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"command": "halt"}, "found command 'halt', expected infer or about"),
        ({"files": ["/nowhere/a.dat"]}, "/nowhere/a.dat"),
        ({"files": ["a.dat"]}, "expected absolute paths"),
        ({}, "expected one of them"),
        ({"files": ["/a"], "modle": "co-k"}, "unknown key modle"),
        ({"energy": [7.5, 8.2], "mu": [0.0, 1.0], "element": "Ni"}, "eV"),
        ({"files": ["/a"], "width": -5}, "key width: found -5"),
    ],
)
def test_a_refused_request_says_why_and_the_next_one_is_answered(server, request_, message):
    answer = ask(server, **request_)
    assert not answer["ok"]
    assert message in answer["error"]
    about = exchange(server.path, {"command": "about"}, LONGEST_S)
    assert about["pid"] == os.getpid()
    assert [*about["models"]] == ["co-k"]


def test_brackets_without_end_are_malformed(server):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(server.path))
        link.sendall(b"[" * 100_000 + b"\n")
        assert b"malformed command" in link.makefile("rb").readline()


def test_only_its_user_can_ask_it(server):
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_socket_of_another_user_is_not_asked(server, tmp_path):
    os.chown(server.path, 65534, 65534)
    said = run_command("infer", write(tmp_path / "a.dat"), "--socket", server.path, code=3).stderr
    assert "no answer (a socket of user 65534, expected one of your own); start xas-agent serve" in said


def test_it_takes_the_place_of_a_killed_server_only(server, tmp_path):
    with pytest.raises(InputError, match="found a server that answers"):
        InferenceServer(CONFIG, server.path)
    file = write(tmp_path / "mine.dat")
    with pytest.raises(InputError, match="found a file"):
        InferenceServer(CONFIG, file)
    assert file.exists()
    left = InferenceServer(CONFIG, tmp_path / "left")
    left._server.server_close()  # as a killed one leaves it
    InferenceServer(CONFIG, tmp_path / "left").close()


def test_without_a_server_infer_says_what_to_do(tmp_path):
    done = run_command("infer", write(tmp_path / "a.dat"), "--socket", tmp_path / "none", code=3)
    assert "start xas-agent serve, or leave out --socket" in done.stderr


def test_a_folder_for_the_socket_that_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(write(tmp_path / "file")))
    assert "name a socket with --socket" in run_command("serve", "--model", "co-k", code=2).stderr


def test_the_command_says_how_scripts_find_it_and_ends_with_a_signal(tmp_path):
    line = command("serve", "--model", "co-k", "--socket", tmp_path / "s")
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == f"export XAS_AGENT_SOCKET={tmp_path / 's'}\n"
        rows = exchange(tmp_path / "s", {"command": "infer", "energy": E.tolist(), "mu": MU.tolist()}, LONGEST_S)
        assert rows["rows"][0]["element"] == "Co"
        process.terminate()
        assert process.wait(LONGEST_S) == 0
    assert not (tmp_path / "s").exists()
