"""Damaged numbers are noted where the file itself shows them, and whole files are not."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from damaged_files import BYTES, TEXT, damage, outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measured import write_normalised, write_series, write_xdi

from xas_agent.adapters.formats import SpectrumFileError, read_spectra

E = np.concatenate([np.arange(8200.0, 8320.0, 5.0), np.arange(8320.0, 8360.0, 0.5), np.arange(8360.0, 8500.0, 3.0)])
MU = 0.4 - 1e-4 * (E - 8200) + 1 / (1 + np.exp(-(E - 8340.0) / 2)) * (1 + 0.1 * np.cos((E - 8340) / 7))
I0 = 2e5 - 30 * (E - 8200)
IT = I0 * np.exp(-MU)

Rows = list[list[str]]


def table() -> Rows:
    columns = (E, E + 0.003 * np.sin(E), I0, IT, MU)
    return [[f"{value:.4f}" for value in row] for row in zip(*columns, strict=True)]


LABELS = "# energy requested i0 itrans mutrans"


def write(path: Path, rows: Rows, header: Sequence[str] = (), labels: str = LABELS) -> Path:
    path.write_text("\n".join([*header, labels, *(" ".join(row) for row in rows), ""]), encoding="utf-8")
    return path


def notes(path: Path) -> str:
    (spectrum,) = read_spectra(path)
    return "; ".join(spectrum.notes)


@pytest.mark.parametrize(
    ("columns", "labels"), [((0, 1, 2, 3, 4), LABELS), ((0, 2, 3), "# energy i0 itrans"), ((0, 4), "# energy xmu")]
)
def test_a_whole_table_gives_no_note(tmp_path, columns, labels):
    rows = [[row[i] for i in columns] for row in table()]
    assert notes(write(tmp_path / "a.dat", rows, labels=labels)) == ""


def lose(row: int, column: int, digit: int) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        text = rows[row][column]
        rows[row][column] = text[:digit] + text[digit + 1 :]

    return change


def exchange(row: int, column: int, value: str) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[row][column] = value

    return change


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lose(40, 2, 10), f"'{I0[40]:.3f}' in row 41 has other digits than the rest of column 3"),
        (lose(40, 4, 1), "in row 41 has other digits than the rest of column 5"),
        (lose(40, 2, 1), "i0 is"),
        (lose(40, 0, 4), "in row 41 has other digits than the rest of column 1"),
        (exchange(40, 1, f"{E[40] + 1:.4f}"), "columns 1 and 2 differ in row 41"),
        (exchange(40, 4, f"{MU[40] + 0.01:.4f}"), "μ in row 41 is not the ln(I0/It) of its row"),
        (exchange(40, 3, f"{-IT[40]:.4f}"), "it is"),
        (lambda rows: rows.pop(70), "the energy steps by 1 eV at"),
        (lambda rows: rows.insert(70, rows[70]), "row 72 repeats the row above it"),
    ],
)
def test_damaged_numbers_are_noted(tmp_path, change, found):
    rows = table()
    change(rows)
    assert found in notes(write(tmp_path / "a.dat", rows))


def test_a_number_with_fewer_digits_than_its_column_is_noted(tmp_path):
    rows = [[f"{e:.1f}", f"{mu + 0.6:#.8g}"] for e, mu in zip(E, MU, strict=True)]
    assert notes(write(tmp_path / "a.dat", rows, labels="# energy xmu")) == ""
    lose(40, 1, 5)(rows)
    assert "in row 41 has other digits than the rest of column 2" in notes(
        write(tmp_path / "b.dat", rows, labels="# energy xmu")
    )


@pytest.mark.parametrize("word", ["nan", "NaN", "-inf"])
def test_a_value_that_is_missing_has_no_digits(tmp_path, word):
    rows = table()
    exchange(40, 1, word)(rows)
    assert "other digits" not in notes(write(tmp_path / "a.dat", rows))
    lose(50, 1, 6)(rows)
    assert "in row 51 has other digits than the rest of column 2" in notes(write(tmp_path / "b.dat", rows))


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("word", ["nan", "inf", "1e999", "0", "-1"])
def test_columns_without_values_are_no_failure(tmp_path, column, word):
    rows = table()
    for row in rows:
        row[column] = word
    try:
        read_spectra(write(tmp_path / "a.dat", rows))
    except SpectrumFileError as error:
        assert "no reader understands" not in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    "line", ["# Scan.n_points: {}", "; n_points = {}", "# NPTS= {} NSCLRS= 3", "# # OF DATA POINTS COLLECTED : {}"]
)
def test_the_number_of_points_in_the_header_is_compared(tmp_path, line):
    rows = table()
    assert notes(write(tmp_path / "a.dat", rows, [line.format(len(rows))])) == ""
    short = notes(write(tmp_path / "b.dat", rows[:-5], [line.format(len(rows))]))
    assert short == f"the header states {len(rows)} points, the table has {len(rows) - 5}"


REGIONS = ["# ScanParameters.E0: 8340.000", "# ScanParameters.Region1: -140.0, -20.0, 5.0 False 1.0"]


@pytest.mark.parametrize("last", ["-20.0, 157.0, 0.5 False 1.0", "2.0, 6.42, 0.05 True 1.0"])
def test_the_regions_of_a_scan_are_compared(tmp_path, last):
    rows = table()
    assert notes(write(tmp_path / "a.dat", rows, [*REGIONS, f"# ScanParameters.Region2: {last}"])) == ""
    assert "the header announces energies from 8200.0 to 8497.0 eV" in notes(
        write(tmp_path / "b.dat", rows[:-20], [*REGIONS, f"# ScanParameters.Region2: {last}"])
    )


def test_a_spec_scan_that_ends_early_is_noted(tmp_path):
    path = tmp_path / "a.spec"
    body = "\n".join(f"{e:.3f} {a:.1f} {b:.1f}" for e, a, b in zip(E, I0, IT, strict=True))
    for points in (len(E), len(E) + 10):
        path.write_text(f"#F a.spec\n\n#S 1 ascan energy 8200 8500 {points - 1} 1\n#N 3\n#L energy  I0  I1\n{body}\n")
        (spectrum,) = read_spectra(path)
        short = (f"the scan announces {points} points, the file has {len(E)}",)
        assert spectrum.notes == (short if points > len(E) else ())


def test_an_athena_group_that_lost_a_point_is_noted(tmp_path):
    path = tmp_path / "a.prj"
    for lost in (None, 70):
        x, y = ([v for i, v in enumerate(a) if i != lost] for a in (E.tolist(), MU.tolist()))
        path.write_text(
            "# Athena project file -- Demeter version 0.9.26\n$old_group = 'abc';\n"
            "@args = ('label','a','bkg_z','Ni','fft_edge','K');\n"
            f"@x = ({','.join(map(str, x))});\n@y = ({','.join(map(str, y))});\n[record]\n"
        )
        (spectrum,) = read_spectra(path)
        assert ("the energy steps by 1 eV" in "".join(spectrum.notes)) is (lost is not None)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), kind=st.sampled_from([*BYTES, *TEXT]), which=st.integers(0, 2))
def test_any_damage_gives_spectra_or_one_error(tmp_path, seed, kind, which):
    whole = tmp_path / ("whole.xdi", "whole.txt", "whole.npz")[which]
    if not whole.exists():
        (write_xdi, write_normalised, lambda path: write_series(path, 3))[which](whole)
    if which == 2 and kind not in list(BYTES)[:3]:
        return
    path = tmp_path / "damaged"
    path.write_bytes(damage(whole.read_bytes(), kind, random.Random(seed)))
    assert outcome(path, read_spectra(whole)) != "misread"
