import doctest
import importlib
import subprocess
import sys

import pytest

MODULES = (
    "xas_agent.service",
    "xas_agent.sim_beamline.beamline",
    "xas_agent.adapters.zmq_socket",
    "xas_agent.adapters.zmq_documents",
    "xas_agent.adapters.formats.headers",
    "xas_agent.adapters.formats.naming",
    "xas_agent.agent.fields",
    "xas_agent.agent.flying",
    "xas_agent.agent.monochromator",
    "xas_agent.agent.names",
    "xas_agent.agent.start",
    "xas_agent.agent.assembly",
    "xas_agent.agent.sweeps",
    "xas_agent.agent.publishing",
    "xas_agent.agent.trend",
    "xas_agent.agent.triggers",
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
