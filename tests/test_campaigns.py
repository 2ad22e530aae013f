"""Short forms of the campaigns under benchmarks/campaigns: their counts, not their speed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nats_server import SERVER

pytestmark = pytest.mark.slow
CAMPAIGNS = Path(__file__).parents[1] / "benchmarks" / "campaigns"


def figures_of(script: str, *options: object) -> dict[str, str]:
    """Run a campaign, which must succeed; return the last word of each line by the words before."""
    command = [sys.executable, str(CAMPAIGNS / script), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if len(line.split()) > 1]
    return {" ".join(words[:-1]): words[-1] for words in lines}


def test_every_frame_of_an_overload_is_answered_or_counted() -> None:
    figures = figures_of("overload.py", "--seconds", 4)
    assert int(figures["not accounted for"]) == 0
    assert int(figures["answered"]) > 0
    assert int(figures["left out"]) > 0


def test_valid_frames_among_hostile_messages_are_answered_once() -> None:
    figures = figures_of("messages.py", "--messages", 5000, "--seed", 1)
    assert int(figures["messages"]) >= 5000
    assert int(figures["valid frames"]) > 20


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    # 20 000 frames after the warm-up: kept whole, they would take 80 MB, four times the permitted growth.
    figures = figures_of("frames.py", "--frames", 30000, "--counts-only", "--out", tmp_path / "out")
    assert figures["answered"] == "30000"


def test_kills_lose_and_double_nothing():
    command = [sys.executable, str(CAMPAIGNS / "kills.py"), "--kills", "3", "--zmq", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = [line.rsplit(maxsplit=1) for line in done.stdout.splitlines() if len(line.split()) > 1]
    assert [value for name, value in figures if name == "kills"] == ["3", "2"]
    assert all(int(value) for name, value in figures if name in ("frames", "decisions"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("broker", ["nats", "kafka"])
def test_agents_that_share_runs_answer_each_frame_once(broker: str) -> None:
    if broker == "nats" and SERVER is None:
        pytest.skip("no nats-server: apt-get install nats-server")
    figures = figures_of("brokers.py", "--broker", broker, "--agents", 2, "--kills", 2)
    assert int(figures["frames"]) == int(figures["answered"]) > 0


def test_a_queue_server_does_each_action_once_over_a_bad_network() -> None:
    pytest.importorskip("bluesky_queueserver_api", reason="pip install bluesky-queueserver-api")
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server: apt-get install redis-server")
    figures = figures_of("queue_actions.py", "--actions", 40)
    assert figures["actions"] == "40"
    assert int(figures["messages lost"]) > 0
    assert int(figures["messages repeated"]) > 0


def test_a_full_disk_loses_nothing_that_was_published(tmp_path: Path) -> None:
    figures = figures_of("full_disk.py", "--full", 3, "--folder", tmp_path / "disk")
    assert int(figures["frames in the files"]) > 0


def test_peers_that_are_killed_lose_nothing_that_a_catalogue_has(tmp_path: Path) -> None:
    pytest.importorskip("bluesky_tiled_plugins", reason="pip install 'xas-agent[tiled]'")
    pytest.importorskip("tiled.server", reason="pip install 'tiled[server]'")
    figures = figures_of("outages.py", "--kills", 5, "--folder", tmp_path / "outages")
    assert figures["frames answered"] == figures["frames sent"] != "0"
