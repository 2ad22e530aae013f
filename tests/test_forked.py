"""The process that forks the tests' commands outlives those who ask it, and their commands do not."""

import json
import socket
import subprocess

import pytest
from forked import address, command, run_command


@pytest.mark.parametrize("said", [b"", b"\n", b'\n{"module"'])
def test_who_is_killed_while_it_asks_ends_nothing_else(said):
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(address())
        asking.sendall(said)
    run_command("--version")


def test_a_command_ends_with_the_process_that_stands_for_it():
    line = command("sim", "--wait", 600, "--publish", "zmq://127.0.0.1:0")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert "documents" in json.loads(process.stdout.readline())
        process.kill()
        assert process.stdout.read() == "", "until nobody can write any more"
