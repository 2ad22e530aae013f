"""Detection of fields, element and edge in the documents of beamlines, from their public profiles."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from xas_agent.agent.fields import StreamFields, UnreadableStream, element_and_edge, resolve, skip_reason
from xas_agent.agent.fields.settings import FieldSettings
from xas_agent.agent.stream.columns import finite_scalars

NUMBER = {"source": "sim", "dtype": "number", "shape": []}
ARRAY = {"source": "sim", "dtype": "array", "shape": [50]}


def descriptor(*names: str, about: dict[str, Any] = NUMBER, **extra: Any) -> dict[str, Any]:
    return {"uid": "d", "run_start": "r", "name": "primary", "data_keys": dict.fromkeys(names, about), **extra}


def guess(
    *names: str, start: dict[str, Any] | None = None, fields: FieldSettings | None = None, **extra: Any
) -> StreamFields:
    found = resolve(fields or FieldSettings(), descriptor(*names, **extra), start or {})
    assert isinstance(found, StreamFields), found
    return found


@pytest.mark.parametrize(
    ("names", "energy", "i0", "it", "iref"),
    [
        ("energy I0 It", "energy", "I0", "It", None),
        ("dcm_energy dcm_energy_setpoint dwti_dwell_time I0 It Ir Ni1 Ni2", "dcm_energy", "I0", "It", "Ir"),
        (
            "hhm_energy apb_ave_ch1_mean apb_ave_ch2_mean apb_ave_ch3_mean apb_ave_ch4_mean",
            "hhm_energy",
            "apb_ave_ch1_mean",
            "apb_ave_ch2_mean",
            "apb_ave_ch3_mean",
        ),
        (
            "monochromator-energy I0-count It-count Iref-count I0-net_current It-net_current ion-clock-count",
            "monochromator-energy",
            "I0-count",
            "It-count",
            "Iref-count",
        ),
        ("mono_energy i0 itrans irefer", "mono_energy", "i0", "itrans", "irefer"),
        ("energy_setpoint i0 i1 i2", "energy_setpoint", "i0", "i1", "i2"),
        (
            "mono_energy_rbv ring_current chambers_I0 chambers_It",
            "mono_energy_rbv",
            "chambers_I0",
            "chambers_It",
            None,
        ),
    ],
)
def test_transmission_by_its_usual_names(names: str, energy: str, i0: str, it: str, iref: str | None) -> None:
    found = guess(*names.split())
    assert (found.form, found.formula) == ("step", "transmission")
    assert (found.energy, found.i0, found.it, found.iref) == (energy, i0, it, iref)
    assert "transmission" in found.describe()


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        ("en_energy i0 If1 If2 If3 If4", ("If1", "If2", "If3", "If4")),
        ("hhm_energy i0 xs_channel1_rois_roi01_value xs_channel1_rois_roi02_value xs_channel2_rois_roi01_value",
         ("xs_channel1_rois_roi01_value", "xs_channel2_rois_roi01_value")),
        ("dcm_energy I0 Ni1 Ni2 Fe1", ("Ni1", "Ni2")),
        ("energy i0 fluorescence", ("fluorescence",)),
    ],
)  # fmt: skip
def test_all_fluorescence_channels_are_used(names: str, channels: tuple[str, ...]) -> None:
    found = guess(*names.split(), start={"element": "Ni"})
    assert (found.formula, found.fluorescence) == ("fluorescence", channels)


def test_formula_follows_config_then_start_then_a_fixed_order() -> None:
    names = ("energy", "I0", "It", "If", "mu", "norm", "reference")
    assert guess(*names).formula == "transmission"
    fluo = guess(*names, start={"XDI": {"_mode": ("fluorescence",)}})
    assert (fluo.formula, fluo.reference) == ("fluorescence", "reference")
    assert guess(*names, start={"XDI": {"_mode": "fluorescence", "_dtc": ["mu", "norm"]}}).fluorescence == (
        "mu",
        "norm",
    )
    for formula, mu in (("mu", "mu"), ("normalised", "norm")):
        found = guess(*names, fields=FieldSettings.model_validate({"formula": formula}))
        assert (found.formula, found.mu) == (formula, mu)
    found = guess(*names, fields=FieldSettings(mu="NORM", formula="normalised"))
    assert (found.formula, found.mu) == ("normalised", "norm")
    assert guess("energy", "norm", "reference", about=ARRAY).formula == "normalised"


def test_readings_are_the_other_scalars() -> None:
    found = guess("energy", "energy_setpoint", "I0", "It", "voltage", "temperature")
    assert found.readings == ("voltage", "temperature")
    fields = FieldSettings(energy="mono_user_readback")
    found = guess(
        "mono_user_readback", "mono_user_setpoint", "mono_setpoint", "I0", "It", "heater_setpoint", fields=fields
    )
    assert found.readings == ("heater_setpoint",)


def test_arrays_and_their_energies() -> None:
    assert guess("energy", "mu", about=ARRAY).form == "array"
    assert guess("energy", "I0", "It", about={**ARRAY, "shape": [1]}).form == "step"
    axis = np.linspace(8.2, 8.5, 50)
    configuration = {
        "spectrometer": {"data": {"energy": axis}, "data_keys": {"energy": {"units": "keV"}}, "timestamps": {}}
    }
    found = guess("mu", about=ARRAY, configuration=configuration)
    assert found.grid is not None
    np.testing.assert_allclose(found.grid, axis * 1000)
    assert guess("energy", "mu", about={**NUMBER, "units": "keV"}).energy_scale == 1000
    assert guess("energy", about=ARRAY).formula is None


def test_streams_without_a_spectrum_give_no_note() -> None:
    assert resolve(FieldSettings(), descriptor("voltage", "temperature"), {}) is None
    assert resolve(FieldSettings(), descriptor("energy", "I0", "It") | {"name": "baseline"}, {}) is None
    assert resolve(FieldSettings(), descriptor("energy", "I0", "It") | {"name": "energy_monitor"}, {}) is None
    assert resolve(FieldSettings(streams=("fly",)), descriptor("energy", "I0", "It"), {}) is None


@pytest.mark.parametrize(
    ("names", "reason", "named"),
    [
        (("energy", "foo", "bar"), "no absorption fields", "foo, bar"),
        (("energy", "a_i0", "b_i0", "It"), "ambiguous fields", "a_i0, b_i0"),
        (("left_energy", "right_energy", "i0", "It"), "ambiguous fields", "left_energy, right_energy"),
    ],
)
def test_ambiguity_is_reported_with_the_fields_found(names: tuple[str, ...], reason: str, named: str) -> None:
    found = resolve(FieldSettings(), descriptor(*names), {})
    assert isinstance(found, UnreadableStream)
    assert found.reason == reason
    assert named in found.detail


@pytest.mark.parametrize(
    ("names", "fields", "detail"),
    [
        ("energy I0 It", {"energy": "enrgy"}, "no key 'enrgy' in stream primary; found energy, I0, It"),
        ("energy I0 It", {"energy": "energy", "i0": "IO", "it": "It"}, "no key 'IO' in"),
        ("energy I0 It mu", {"i0": "I00", "it": "It"}, "no key 'I00' in"),
        ("energy I0 It", {"mu": "xmuu"}, "no key 'xmuu' in"),
        ("energy I0 If", {"fluorescence": ("If", "If2")}, "no key 'If2' in"),
        ("energy foo bar", {"i0": "foo", "it": "baz"}, "no key 'baz' in"),
    ],
)
@pytest.mark.parametrize("about", [NUMBER, ARRAY])
def test_missing_configured_field_is_reported(
    names: str, fields: dict[str, Any], detail: str, about: dict[str, Any]
) -> None:
    found = resolve(FieldSettings(**fields), descriptor(*names.split(), about=about), {})
    assert isinstance(found, UnreadableStream)
    assert found.reason == "field missing"
    assert found.detail.startswith(detail)


def test_configuration_may_name_more_than_a_scan_records() -> None:
    every = FieldSettings(energy="energy", i0="I0", it="It", iref="Ir", fluorescence=("If",))
    assert guess("energy", "I0", "It", fields=every).formula == "transmission"
    assert guess("energy", "I0", "If", fields=every).formula == "fluorescence"
    assert guess("energy", fields=every, about=ARRAY).formula is None, "of the spectra in another stream"
    assert guess("I0", "It", fields=every, about=ARRAY).energy is None, "that is in another stream"
    axis = {"spectrometer": {"data": {"axis": np.linspace(8200, 8500, 50)}, "data_keys": {}, "timestamps": {}}}
    assert (
        guess("energy", "mu", fields=FieldSettings(energy="axis"), about=ARRAY, configuration=axis).grid is not None
    )
    assert resolve(every, descriptor("voltage", "temperature"), {}) is None
    assert resolve(FieldSettings(energy="enrgy"), descriptor("energy", "I0", "It") | {"name": "baseline"}, {}) is None


def test_external_data_are_reported() -> None:
    found = resolve(FieldSettings(), descriptor("energy", "I0", "It", about={**ARRAY, "external": "STREAM:"}), {})
    assert isinstance(found, UnreadableStream)
    assert found.reason == "external data not read"
    mixed = descriptor("energy", "I0", "It")
    mixed["data_keys"]["camera"] = {**ARRAY, "external": "STREAM:"}
    assert isinstance(resolve(FieldSettings(), mixed, {}), StreamFields)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ({"element": "Ni", "edge": "K"}, ("Ni", "K")),
        ({"element": ("ni",), "edge": ["k"]}, ("Ni", "K")),
        ({"edge": "Ni_K"}, ("Ni", "K")),
        ({"edge": "Ni-K"}, ("Ni", "K")),
        ({"edge": "Pt L3 edge"}, ("Pt", "L3")),
        ({"element": "Pt", "edge": "L3"}, ("Pt", "L3")),
        ({"XDI": {"Element": {"symbol": "Co", "edge": "K"}}}, ("Co", "K")),
        ({"XDI": {"Element.symbol": "Co", "Element.edge": "K"}}, ("Co", "K")),
        ({"XDI.Element.symbol": "Co", "XDI.Element.edge": "K-edge"}, ("Co", "K")),
        ({"element": 28, "edge": None}, (None, None)),
        ({"element": "Nickel", "edge": "7112"}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_element_and_edge_in_all_their_forms(start: dict[str, Any], expected: tuple[str | None, str | None]) -> None:
    assert element_and_edge(FieldSettings(), start) == expected
    assert element_and_edge(FieldSettings(element="Cu", edge="K"), start) == ("Cu", "K")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"element": "ni", "edge": "k"}, ("Ni", "K")),
        ({"element": "NI", "edge": "Ni_K"}, ("Ni", "K")),
        ({"edge": "pt-l3"}, ("Pt", "L3")),
        ({"element": "Co"}, ("Co", None)),
        ({}, (None, None)),
    ],
)
def test_configured_absorber_is_normalised(given: dict[str, str], expected: tuple[str | None, str | None]) -> None:
    fields = FieldSettings.model_validate(given)
    assert (fields.element, fields.edge) == expected


@pytest.mark.parametrize("given", [{"element": "Nickel"}, {"edge": "7112"}, {"element": 28}])
def test_invalid_configured_absorber_is_rejected(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        FieldSettings.model_validate(given)
    assert refused.value.errors()[0]["loc"] == tuple(given)


@pytest.mark.parametrize(
    ("start", "skipped"),
    [
        ({"plan_name": "scan_nd xafs Ni K"}, False),
        ({"plan_name": "scan from 8333 eV"}, False),
        ({"plan_name": "mirror_alignment"}, True),
        ({"plan_name": "take_dark"}, True),
        ({"plan_name": "time_scan"}, True),
        ({"plan_name": "scan_nd", "XDI": {"_kind": "333"}}, True),
        ({"plan_name": "scan_nd", "XDI": {"_kind": ("xafs",)}}, False),
        ({}, False),
    ],
)
def test_other_kinds_of_scan_are_recognised(start: dict[str, Any], skipped: bool) -> None:
    assert (skip_reason(FieldSettings(), start) is not None) is skipped
    assert skip_reason(FieldSettings(skip_plans=()), start) is None


def test_scalars_are_finite_numbers() -> None:
    given = {"a": 1, "b": np.float32(2), "c": [3.0], "d": "4", "e": True, "f": np.nan, "g": [1, 2], "h": 10**400}
    assert finite_scalars(given) == {"a": 1.0, "b": 2.0, "c": 3.0}


@pytest.mark.parametrize(
    ("start", "iref"),
    [
        ({"Sample": {"reference": "none"}}, None),
        ({"Sample.reference": ("None",)}, None),
        ({"XDI": {"Sample": {"reference": "no foil"}}}, None),
        ({"reference_foil": False}, None),
        ({"Sample": {"reference": "Ni foil", "temperature": "none"}}, "Ir"),
        ({"reference": ["none", "Ni"]}, "Ir"),
        ({}, "Ir"),
    ],
)
def test_the_start_may_say_that_there_is_no_foil(start: dict[str, Any], iref: str | None) -> None:
    assert guess("energy", "I0", "It", "Ir", start=start).iref == iref
    assert guess("energy", "I0", "It", "Ir", start=start, fields=FieldSettings(iref="Ir")).iref == iref
    assert guess("energy", "mu", "reference", start=start).reference == ("reference" if iref else None)
