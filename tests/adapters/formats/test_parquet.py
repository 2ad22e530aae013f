"""Tests of spectra in Parquet tables."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import ENERGY, START_S, intensities, write_table

from xas_agent.adapters.formats import SpectrumFileError, iterate_parquet, parquet_rows, read_spectra


def test_rows_are_spectra(tmp_path):
    path = write_table(tmp_path / "a.parquet", 0, 5)
    spectra = read_spectra(path)
    assert parquet_rows(path) == len(spectra) == 5
    third, expected = spectra[3], intensities(3)
    assert (third.id, third.row, third.sample, third.element) == ("scan 3", 3, "cell", "Co")
    assert third.time == START_S + 180.0
    assert third.formula == "transmission"
    np.testing.assert_allclose(third.mu, np.log(expected["i0"] / expected["it"]))
    assert third.reference is not None
    np.testing.assert_allclose(third.reference, np.log(expected["it"] / expected["iref"]))


@pytest.mark.parametrize(("first", "stop"), [(0, 700), (5, 6), (63, 65), (200, 600), (690, 900)])
def test_a_range_of_rows_across_row_groups(tmp_path, first, stop):
    path = write_table(tmp_path / "a.parquet", 0, 700)
    found = [s.row for s in iterate_parquet(path, None, first, stop)]
    assert found == list(range(first, min(stop, 700)))


def write(path: Path, **columns: list | pa.Array) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_rows_may_have_other_lengths_and_no_foil(tmp_path):
    mu = np.arange(ENERGY.size, dtype=float)
    path = write(
        tmp_path / "a.pq",
        energy=[ENERGY.tolist(), (ENERGY[:50] / 1000).tolist()],
        mu=[mu.tolist(), mu[:50].tolist()],
        reference=[mu.tolist(), None],
        time=[datetime(2025, 6, 15, tzinfo=UTC), None],
    )
    first, second = read_spectra(path)
    assert first.time == datetime(2025, 6, 15, tzinfo=UTC).timestamp()
    assert second.time is None
    assert first.reference is not None
    assert second.reference is None
    np.testing.assert_allclose(second.energy, ENERGY[:50])
    assert "keV" in " ".join(second.notes)


def test_a_row_that_turns_is_several_spectra_of_one_row(tmp_path):
    there_and_back = [*ENERGY.tolist(), *ENERGY[::-1].tolist()]
    path = write(tmp_path / "a.pq", energy=[there_and_back] * 2, mu=[there_and_back] * 2)
    assert [s.row for s in read_spectra(path)] == [0, 0, 1, 1]


def test_lengths_that_disagree_leave_an_empty_spectrum_with_a_note(tmp_path):
    path = write(tmp_path / "a.pq", energy=[[1.0, 2.0], None], mu=[[1.0, 2.0, 3.0], [1.0]])
    first, second = read_spectra(path)
    assert (len(first.mu), len(second.mu)) == (0, 0)
    assert "found 2 energies and 3 of mu" in first.notes[0]


def test_columns_may_be_named(tmp_path):
    path = write(tmp_path / "a.pq", mono=[ENERGY.tolist()], absorbed=[ENERGY.tolist()])
    with pytest.raises(SpectrumFileError, match="found the columns mono, absorbed, expected energy and mu"):
        read_spectra(path)
    (spectrum,) = read_spectra(path, columns={"energy": "mono", "mu": "absorbed"})
    np.testing.assert_allclose(spectrum.mu, ENERGY)
    with pytest.raises(SpectrumFileError, match="no list other"):
        read_spectra(path, columns={"energy": "mono", "mu": "other"})


def test_a_damaged_table_says_so(tmp_path):
    whole = write_table(tmp_path / "a.parquet", 0, 5)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(SpectrumFileError, match="not a Parquet table"):
        read_spectra(cut)


def test_lists_of_texts_are_no_spectrum(tmp_path):
    path = write(tmp_path / "a.pq", energy=[["a", "b"]], mu=[["c", "d"]])
    with pytest.raises(SpectrumFileError, match=r"found the columns energy, mu, expected .* as lists of numbers"):
        read_spectra(path)


def test_a_name_that_is_no_utf8(tmp_path):
    path = write_table(tmp_path / "a.parquet", 0, 2)
    other = path.rename(tmp_path / os.fsdecode(b"a\xff.parquet"))
    assert parquet_rows(other) == 2
    assert [s.row for s in read_spectra(other)] == [0, 1]


@pytest.mark.parametrize(
    "cell",
    [
        *(pa.scalar(datetime(2025, 6, 1, 12), pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")),
        pa.scalar("2025-06-01 12:00:00"),
        pa.scalar(datetime(2025, 6, 1, 16, tzinfo=UTC), pa.timestamp("ns", "UTC")),
    ],
)
def test_a_time_without_a_zone_is_local_in_any_unit(tmp_path, monkeypatch, cell):
    monkeypatch.setenv("TZ", "EST4")
    time.tzset()
    points = pa.array([ENERGY.tolist()])
    path = write(tmp_path / "a.pq", energy=points, mu=points, time=pa.array([cell.as_py()], cell.type))
    found = read_spectra(path)[0].time
    monkeypatch.undo()
    time.tzset()
    assert found == datetime(2025, 6, 1, 16, tzinfo=UTC).timestamp()
