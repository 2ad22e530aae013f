"""A search among samples through a queue server: bluesky-adaptive's runner, a worker, and an agent that listens.

The proxy and the search are processes of their own, since bluesky's cannot be ended from another thread.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from queue_server import client, serving
from spectrometer import CELSIUS, lithium

TESTS = str(Path(__file__).parents[2])
PROXY = """
from bluesky.callbacks.zmq import Proxy
proxy = Proxy("127.0.0.1", "127.0.0.1")
print(proxy.in_port, proxy.out_port, flush=True)
proxy.start()
"""
STARTUP = """
import sys

from bluesky.callbacks.zmq import Publisher
from ophyd import SoftPositioner

sys.path.insert(0, "@TESTS@")
from @PACKAGE@.plans import default_acquire as acquire_as_suggested
from spectrometer import Spectrometer

from xas_agent.adapters.codecs import encode

place = SoftPositioner(name="place", init_pos=0)
spectrometer = Spectrometer(place)
RE.md["element"] = "Co"
RE.subscribe(Publisher("@IN@", serializer=lambda doc: encode(doc, "msgpack")))


# The manager cannot validate what is passed to the package's own plan, by its annotations.
def default_acquire(suggestions, actuators, sensors=None, md=None):
    yield from acquire_as_suggested(suggestions, actuators, sensors, md)
"""
SEARCH = """
import importlib, json, os, sys, threading
from bluesky.callbacks.zmq import RemoteDispatcher
from bluesky_queueserver_api.zmq import REManagerAPI
from xas_agent import XASAgent
from xas_agent.adapters.ask_tell import AgentOutcomes
from xas_agent.adapters.codecs import decode
from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSource
from xas_agent.agent.propose import SampleProposer, SampleSettings

package, out, manager, rows = *sys.argv[1:4], json.loads(sys.argv[4])
queueserver, protocols = (importlib.import_module(f"{package}.{name}") for name in ("queueserver", "protocols"))
source = ZMQSource(ZMQEndpoint(address=out))
source.connect()
agent = XASAgent.from_config({"model": {"use": ["co-k"]}})
threading.Thread(target=lambda: [agent(name, doc) for name, doc in source], daemon=True).start()
settings = SampleSettings(quantity="OS", aim=3.4, features=("celsius",), parameters=("place",), tolerance=0.05)
proposer = SampleProposer(rows, settings)
api = REManagerAPI(zmq_control_addr=manager)
runner = queueserver.QueueserverOptimizationRunner(
    protocols.QueueserverOptimizationProblem(
        proposer, ["place"], ["spectrometer"], AgentOutcomes.of(agent, {"OS": "OS"})
    ),
    queueserver.QueueserverClient(api, RemoteDispatcher(out, deserializer=lambda doc: decode(doc, "msgpack"))),
)
uids = []
while not proposer.should_stop()[0]:
    uids += runner.run(iterations=1, num_points=2).result(timeout=60).uids
    api.wait_for_idle(timeout=60)
print(json.dumps([uids, proposer.get_best_points()]), flush=True)
os._exit(0)
"""


@contextmanager
def proxied() -> Iterator[tuple[str, str]]:
    """Run bluesky's proxy; yield the addresses into it and out of it."""
    with subprocess.Popen([sys.executable, "-c", PROXY], stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        into, out = proxy.stdout.readline().replace("tcp://", "").split()
        yield into, out
        proxy.kill()


@pytest.mark.slow
@pytest.mark.parametrize("package", ["bluesky_adaptive", "blop"])
def test_a_search_runs_through_a_queue_server(package):
    pytest.importorskip(package)
    rows = [{"place": k, "celsius": float(c)} for k, c in enumerate(CELSIUS)]
    with proxied() as (into, out):
        startup = STARTUP.replace("@IN@", into).replace("@PACKAGE@", package).replace("@TESTS@", TESTS)
        with serving(more=startup) as server, client(server) as api:
            api.environment_open()
            api.wait_for_idle(timeout=60)
            assert api.status()["worker_environment_exists"], server.log()
            command = [sys.executable, "-c", SEARCH, package, out, server.address, json.dumps(rows)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    uids, [[id, _, outcome]] = json.loads(done.stdout.splitlines()[-1])
    assert 1 <= len(uids) == len(set(uids)) <= 5
    assert outcome["OS"] == pytest.approx(3.4, abs=0.05)
    assert outcome["OS"] == pytest.approx(4 - lithium(CELSIUS[id]), abs=0.15)
