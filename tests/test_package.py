import doctest
import importlib
import subprocess
import sys

import pytest

MODULES = (
    "xas_agent.app.agent",
    "xas_agent.sim_beamline.beamline",
    "xas_agent.adapters.zmq.socket",
    "xas_agent.adapters.zmq.documents",
    "xas_agent.adapters.formats.headers",
    "xas_agent.adapters.formats.naming",
    "xas_agent.agent.fields.resolve",
    "xas_agent.agent.stream.fly",
    "xas_agent.agent.fields.monochromator",
    "xas_agent.agent.fields.names",
    "xas_agent.agent.fields.run_start",
    "xas_agent.agent.stream.assembler",
    "xas_agent.agent.stream.sweeps",
    "xas_agent.agent.publish.agent_run",
    "xas_agent.agent.decide.trend",
    "xas_agent.agent.decide.triggers",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("name", ["xas_agent", "xas_agent.cli"])
def test_importing_it_does_not_import_what_is_heavy(name):
    code = f"import sys, {name}; print([m for m in ('torch', 'bluesky', 'ophyd', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_no_attribute():
    module = importlib.import_module("xas_agent")
    with pytest.raises(AttributeError, match="no_such"):
        _ = module.no_such
