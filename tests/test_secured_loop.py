"""Beamline and agent in processes of their own, under CURVE and under a shared secret: the charge is stopped."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import zmq
from forked import command

from xas_agent.adapters.zmq.keys import make_keys, make_secret

pytestmark = pytest.mark.slow
CONFIG = """
model: {{use: [co-k]}}
rules:
  - {{name: half charged, trigger: {{kind: threshold, descriptor: OS, above: 3.5, window_frames: 21}}, action: stop}}
control: {{enabled: true, allow: [stop]}}
control_endpoint: {{address: "{control}"}}
"""


def stopped(out: Path) -> str | None:
    return json.loads((out / "summary.json").read_text())["stopped_by"]


def watch(tmp_path: Path, of_beamline: list[Any], of_agent: list[Any]) -> tuple[Path, dict[str, str]]:
    """Run beamline and agent with these options until the charge ends; return the output and the addresses."""
    sim = ["--publish", "zmq://127.0.0.1:0", "--control", "zmq://127.0.0.1:0", "--frames", "60", "--seed", "1"]
    with (
        (tmp_path / "beamline.log").open("w") as log,
        subprocess.Popen(
            command("sim", *sim, *of_beamline), stdout=subprocess.PIPE, stderr=log, text=True
        ) as beamline,
    ):
        try:
            assert beamline.stdout is not None
            addresses = json.loads(beamline.stdout.readline())
            forge(addresses["control"])
            (tmp_path / "mine.yaml").write_text(CONFIG.format(**addresses))
            run = ["--config", tmp_path / "mine.yaml", "--source", addresses["documents"], "--out", tmp_path / "out"]
            agent = subprocess.Popen(command("run", *run, *of_agent), stderr=subprocess.PIPE, text=True)
            beamline.wait(100)
            agent.terminate()
            said = agent.communicate(timeout=60)[1]
            assert "half charged" in said, said
        finally:
            beamline.kill()
    return tmp_path / "out", addresses


def forge(address: str) -> None:
    """Send requests as a stranger, before the agent comes."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 500
        stranger.connect(address.replace("zmq://", "tcp://"))
        for n in range(100):
            stranger.send_multipart([b"", b'{"id": %d, "action": "stop"}' % n])


def test_under_curve(tmp_path):
    keys = tmp_path / "keys"
    make_keys(keys, "beamline", client=False)
    make_keys(keys, "agent", client=True)
    out, _ = watch(
        tmp_path,
        ["--curve-key", keys / "beamline.key_secret", "--curve-clients", keys / "clients"],
        ["--curve-key", keys / "agent.key_secret", "--curve-server-key", keys / "beamline.key"],
    )
    assert stopped(out) == "half charged"
    assert (tmp_path / "beamline.log").read_text().count("client refused") == 1


def test_with_a_shared_secret(tmp_path):
    secret = tmp_path / "secret"
    make_secret(secret)
    out, _ = watch(tmp_path, ["--control-secret", secret], ["--control-secret", secret])
    assert stopped(out) == "half charged"
    log = (tmp_path / "beamline.log").read_text()
    assert log.count("client refused") == 1
    for text in (log, *(path.read_text() for path in out.glob("*.json*"))):
        assert secret.read_text().strip() not in text
