"""Streams whose energy has no usual name."""

from typing import Any

import numpy as np
import pytest
from logs import capture_logs
from made_runs import AXIS, Made, feed

from xas_agent.agent.stream import FrameReader
from xas_agent.agent.types import Received


def renamed(made: Made, names: dict[str, str], **units: str) -> list[tuple[str, dict[str, Any]]]:
    docs = []
    for name, doc in made.docs:
        if name == "descriptor":
            keys = {names.get(key, key): about for key, about in doc["data_keys"].items()}
            keys = {key: about | ({"units": units[key]} if key in units else {}) for key, about in keys.items()}
            doc = {**doc, "data_keys": keys}
        elif name == "event":
            doc = {**doc, "data": {names.get(key, key): value for key, value in doc["data"].items()}}
        docs.append((name, doc))
    return docs


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("name", ["mono", "mono_en", "mono-e", "dcm", "x"])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_energy_is_found_by_its_values(name: str, array: bool, scale: float) -> None:
    made = Made().sweep(array=array).sweep(array=array, rising=False).stop()
    for kind, doc in made.docs:
        if kind == "event":
            doc["data"]["energy"] = doc["data"]["energy"] * scale
    frames, asides = feed(renamed(made, {"energy": name}))
    assert not asides
    assert [frame.energy.size for frame in frames] == [AXIS.size] * 2
    np.testing.assert_allclose(frames[1].energy, AXIS)


def test_readback_is_preferred_to_its_setpoint() -> None:
    made = Made().sweep(mono_setpoint=0.0).stop()
    for kind, doc in made.docs:
        if kind == "event":
            doc["data"] |= {"mono_setpoint": doc["data"]["energy"], "energy": doc["data"]["energy"] + 0.25}
    (frame,) = feed(renamed(made, {"energy": "mono"}))[0]
    np.testing.assert_allclose(frame.energy, AXIS + 0.25)


@pytest.mark.parametrize(
    ("metadata", "units"),
    [({}, "deg"), ({"element": "Fe"}, ""), ({"element": None, "edge": None}, "")],
    ids=["an angle", "another edge", "no edge and no telling name"],
)
def test_other_axes_are_reported_with_the_fields(metadata: dict[str, Any], units: str) -> None:
    made = Made(**metadata).sweep().stop()
    frames, (aside,) = feed(renamed(made, {"energy": "x"}, x=units))
    assert not frames
    assert aside.reason == "no energy"
    assert aside.detail == ("stream primary: I0, It came without a known energy; name fields.energy; found x, I0, It")


def test_unit_or_name_tells_the_energy_of_an_unknown_element() -> None:
    made = Made(element=None, edge=None).sweep().stop()
    assert len(feed(renamed(made, {"energy": "x"}, x="eV"))[0]) == 1
    assert len(feed(renamed(made, {"energy": "mono"}))[0]) == 1


@pytest.mark.parametrize(
    ("upstream", "downstream"),
    [
        ("ic_upstream", "ic_downstream"),
        ("Iup", "Idown"),
        ("ionchamber_up", "ionchamber_down"),
        ("upstream-ion-chamber", "downstream-ion-chamber"),
    ],
)
def test_ion_chambers_named_by_their_place(upstream: str, downstream: str) -> None:
    made = Made().sweep().stop()
    frames, asides = feed(renamed(made, {"I0": upstream, "It": downstream}))
    assert not asides
    assert len(frames) == 1


UNREAD = {"energy": "position", "I0": "diode", "It": "pin"}


def test_stream_that_is_not_read_is_logged_once_whatever_the_number_of_its_runs() -> None:
    docs = [doc for _ in range(3) for doc in renamed(Made().sweep().stop(), UNREAD)]
    with capture_logs() as logs:
        assert feed(docs) == ([], [])
    (log,) = [log for log in logs if log["log_level"] == "warning"]
    assert log["fields"] == "position, diode, pin"
    assert "name them under fields" in log["event"]
    assert log["help"] == "xas-agent inspect SOURCE"


def test_stream_that_is_not_read_is_logged_before_its_run_ends() -> None:
    reader = FrameReader(source="zmq://host:5578")
    with capture_logs() as logs:
        for name, doc in renamed(Made().sweep(), UNREAD):
            reader(Received(name, doc, 0.0))
    (log,) = [log for log in logs if log["log_level"] == "warning"]
    assert log["help"] == "xas-agent inspect zmq://host:5578"


def test_intensities_without_an_energy_are_logged_with_the_command() -> None:
    with capture_logs() as logs:
        feed(renamed(Made().sweep().stop(), {"energy": "x"}))
        feed(renamed(Made(element="Fe").sweep().stop(), {"energy": "x"}))
    (log,) = [log for log in logs if log["event"].startswith("stream not read")]
    assert log["fields"] == "x, I0, It"
