"""What a RunStart says of the sample, and to which series its frames belong."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xas_agent.agent.fields import SeriesSettings, read_scan, with_file
from xas_agent.agent.types import Scan

DEFAULT = SeriesSettings()


@pytest.mark.parametrize(
    ("start", "series", "sample"),
    [
        ({"sample_uid": "u", "sample_name": "NiO"}, "u", "NiO"),
        ({"sample_uid": "u"}, "u", "u"),
        ({"sample_uid": "", "sample_name": "NiO"}, "NiO", "NiO"),
        ({"sample_uid": None, "sample_name": " \t"}, "", ""),
        ({"sample_name": ("NiO",)}, "NiO", "NiO"),
        ({"sample": {"name": "NiO"}}, "NiO", "NiO"),
        ({"sample.name": "NiO"}, "NiO", "NiO"),
        ({"Sample.name": "NiO"}, "NiO", "NiO"),
        ({"Sample": {"name": "NiO"}}, "NiO", "NiO"),
        ({"XDI": {"Sample": {"name": "NiO"}}}, "NiO", "NiO"),
        ({"XDI": {"Sample.name": "NiO"}}, "NiO", "NiO"),
        ({"XDI.Sample.name": "NiO"}, "NiO", "NiO"),
        ({"sample": "NiO"}, "NiO", "NiO"),
        ({"sample_name": "  a\n b "}, "a b", "a b"),
        ({"sample_uid": 7}, "7", "7"),
        ({"sample_uid": np.int64(7)}, "7", "7"),
        ({"sample_uid": 7.0}, "7", "7"),
        ({"sample_uid": np.array([7])}, "7", "7"),
        ({"sample_uid": 2**64 + 1}, str(2**64 + 1), str(2**64 + 1)),
        ({"sample_uid": True, "sample_name": "NiO"}, "NiO", "NiO"),
        ({"sample_uid": float("nan")}, "", ""),
        ({"sample_uid": 0}, "0", "0"),
        ({"plan_name": "scan"}, "", ""),
    ],
)
def test_sample_of_a_run(start: dict[str, Any], series: str, sample: str):
    scan = read_scan({"uid": "run", **start}, DEFAULT)
    assert (scan.series, scan.sample) == (series, sample)


def test_configured_key_replaces_the_usual_ones():
    start = {"uid": "run", "sample_name": "NiO", "cell": {"number": 3}}
    assert read_scan(start, SeriesSettings(key=("cell.number",))) == Scan("3", "NiO")
    assert read_scan(start, SeriesSettings.model_validate({"key": "holder"})) == Scan("", "NiO")
    assert read_scan(start, SeriesSettings.model_validate({"key": ["holder", "cell.number"]})).series == "3"


def test_uid_as_the_key_makes_every_run_a_series():
    assert read_scan({"uid": "run", "sample_name": "NiO"}, SeriesSettings(key=("uid",))) == Scan("", "NiO")


@pytest.mark.parametrize(
    ("scan_id", "read"), [(7, 7), (np.int64(7), 7), ("7", 7), (None, 0), ("seven", 0), (-1, 0), (2.5, 0)]
)
def test_scan_id(scan_id: object, read: int):
    assert read_scan({"uid": "run", "scan_id": scan_id}, DEFAULT).scan_id == read


def test_file_is_named_without_its_folder():
    assert read_scan({"interp_filename": "/data/2024/NiO 0001.raw"}, DEFAULT).file == "NiO 0001.raw"
    scan = read_scan({"XDI": {"_filename": "nio"}}, DEFAULT)
    assert scan.file == "nio"
    assert with_file(scan, {"file": r"C:\data\b.dat"}).file == "b.dat"
    assert with_file(scan, {"file": 3.0}) == with_file(scan, {}) == scan


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just(np.datetime64("2024")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "Sample", "x"]), inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(["sample_uid", "sample_name", "sample", "Sample", "XDI", "file"]), values))
def test_any_metadata_gives_a_key_of_one_line(start: dict[str, Any]):
    scan = read_scan({"uid": "run", **start}, DEFAULT)
    assert scan.series == " ".join(scan.series.split())
    assert bool(scan.series) <= bool(scan.sample)
