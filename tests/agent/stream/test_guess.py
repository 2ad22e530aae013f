"""Streams whose energy has no usual name."""

from typing import Any

import numpy as np
import pytest
from logs import capture_logs
from made_runs import AXIS, Made, feed


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


def test_stream_that_is_not_read_is_logged_once_per_run() -> None:
    made = Made().sweep().stop()
    with capture_logs() as logs:
        assert feed(renamed(made, {"energy": "position", "I0": "diode", "It": "pin"})) == ([], [])
    (log,) = [log for log in logs if log["log_level"] == "warning"]
    assert log["fields"] == "position, diode, pin"
    assert "name them under fields" in log["event"]
