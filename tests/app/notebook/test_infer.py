"""``infer`` on arrays, spectra and files: shapes, order, errors, and the same numbers as the command."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent import infer, read_spectra
from xas_agent.agent.types import InputError
from xas_agent.app.config import load_config
from xas_agent.app.notebook import SetAsideWarning
from xas_agent.app.notebook.estimates import loaded
from xas_agent.app.notebook.inputs import spectra_of

pytest.importorskip("pandas")
E = np.linspace(7560.0, 8300.0, 600)
MU = 0.3 - 2e-4 * (E - 7709) + 1 / (1 + np.exp(-(E - 7720.0) / 1.5)) + 0.3 * np.exp(-(((E - 7726.0) / 4) ** 2))
BROKEN = np.where(E > 8000, np.nan, MU)
SHORT = E < 7760


def write(path: Path, energy: np.ndarray = E, mu: np.ndarray = MU) -> Path:
    path.write_text("# energy mu\n" + "".join(f"{e:.3f} {m:.6f}\n" for e, m in zip(energy, mu, strict=True)))
    return path


def test_one_spectrum_is_a_row_with_units():
    table = infer(E, MU, element="Co")
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["element"], row["model"], row["reason"]) == ("Co", "co-k", "")
    assert row["OS_lo"] <= row["OS_mean"] <= row["OS_hi"]
    assert row["e0_ev"] == pytest.approx(7720.0, abs=1.5)
    units = table.attrs["units"]
    assert (units["OS_mean"], units["mean_bond_mean"], units["e0_ev"]) == ("e", "Å", "eV")
    assert set(units) <= set(table.columns)
    assert list(table.attrs["models"]) == ["co-k"]


@settings(max_examples=20)
@given(
    broken=st.lists(st.booleans(), max_size=5),
    form=st.sampled_from(["matrix", "rows", "own energies", "different lengths", "falling", "foils"]),
)
def test_every_spectrum_is_a_row_in_its_place(broken, form):
    steps = 1.0 + np.arange(len(broken))  # which tell the spectra apart
    rows = [step * (BROKEN if bad else MU) for step, bad in zip(steps, broken, strict=True)]
    mu, energy, more = np.array(rows).reshape(-1, len(E)), E, {}
    if form == "rows":
        mu = rows if rows else np.empty((0, len(E)))
    elif form == "own energies":
        energy = np.tile(E, (len(rows), 1))
    elif form == "different lengths" and rows:
        mu, energy = [row[k:] for k, row in enumerate(rows)], [E[k:] for k in range(len(rows))]
    elif form == "falling":
        mu, energy = mu[:, ::-1], E[::-1]
    elif form == "foils":
        more = {"reference": MU}
    if any(broken):
        with pytest.warns(SetAsideWarning, match=f"{sum(broken)} of {len(broken)} spectra have no estimate"):
            table = infer(energy, mu, element="Co", **more)
    else:
        table = infer(energy, mu, element="Co", **more)
    assert list(table["id"]) == [str(k) for k in range(len(broken))]
    assert [reason == "NaN in data" for reason in table["reason"]] == broken
    good = ~np.array(broken, bool)
    estimates, edge_steps = table["OS_mean"].to_numpy(), table["edge_step"].to_numpy()
    if good.any():
        assert np.isfinite(estimates[good]).all()
        relative = edge_steps[good] / steps[good]
        assert relative == pytest.approx(np.full(good.sum(), relative[0]), rel=0.02)
    assert np.isnan(estimates[~good]).all()


@given(n=st.integers(0, 4), m=st.integers(1, 12), lists=st.booleans())
def test_arrays_of_any_kind_are_the_same_spectra(n, m, lists):
    energy, mu = 7000 + np.arange(m), np.arange(n * m).reshape(n, m)
    spectra = spectra_of(energy.tolist() if lists else energy, mu.tolist() if lists and n else mu)
    assert [s.id for s in spectra] == [str(k) for k in range(n)]
    assert [s.row for s in spectra] == list(range(n))
    for k, spectrum in enumerate(spectra):
        assert spectrum.energy.dtype == spectrum.mu.dtype == float
        assert (spectrum.energy == energy).all()
        assert (spectrum.mu == mu[k]).all()


def test_a_masked_value_is_missing():
    masked = np.ma.masked_array(MU, E > 8000)
    assert np.isnan(spectra_of(E, masked)[0].mu).sum() == (E > 8000).sum()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((E / 1000, MU), "energy: found 7.56 to 8.3, expected eV; if they are keV, give 1000 * energy"),
        ((MU + 1, E), "energy and mu seem exchanged: give infer(energy, mu)"),
        ((E, MU[1:]), "found 600 values of energy and 599 of mu, expected the same number"),
        ((E, np.tile(MU, (5, 1)).T), "one row per spectrum: give mu.T"),
        ((E, np.zeros((2, 3, 4))), "mu: found shape (2, 3, 4), expected (M,) or (N, M)"),
        ((E, MU > 1), "mu: found values of type bool, expected real numbers"),
        ((E, MU * 1j), "mu: found values of type complex128, expected real numbers"),
        ((E, "mu"), "mu: found str, expected an array of numbers"),
        ((E, [MU, [MU]]), "expected (M,) each"),
        ((E,), "found ndarray without mu, expected energies and μ"),
        (([E, MU],), "found a sequence of ndarray without mu"),
        (("no such file",), "no such file: No such file or directory"),
    ],
)
def test_arguments_that_do_not_fit_are_told(arguments, said):
    with pytest.raises(InputError) as told:
        infer(*arguments)
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"element": "Zz"}, "Zz is not an element"),
        ({"element": "Xe"}, "no model for Xe"),
        ({"model": "no-such"}, "no-such"),
        ({"model": "ni-k"}, "this spectrum is Co; ni-k is for Ni"),
        ({"sample": ["a", "b"]}, "sample: found 2 names, expected 1"),
        ({"reference": MU[1:]}, "found 599 values of reference and 600 of mu"),
        ({"config": {"alignment": {"nothing": 1}}}, "nothing"),
    ],
)
def test_options_that_do_not_fit_are_told(named, said):
    with pytest.raises(InputError) as told:
        infer(E, MU, **named)
    assert said in str(told.value)


def test_an_ambiguous_element_is_told_with_what_to_do(tmp_path):
    mine = shutil.copytree(Path(__file__).parents[3] / "models/shipped/co-k", tmp_path / "mine")
    twice = ["co-k", str(mine)]
    with pytest.raises(InputError, match=r"all fit .*; choose one with model= or element="):
        infer(E, MU, config={"model": {"use": twice}})


@pytest.mark.parametrize(
    ("energy", "mu", "reason", "detail"),
    [
        (E[SHORT], MU[SHORT], "does not cover the grid", "needed at least"),
        (np.r_[E[:300], E[200:500]], MU, "energy not monotonic", "7807.08 eV after 7929.38 eV"),
        (E[::100], MU[::100], "too few points", "6 points"),
        (np.where(E > 8000, np.nan, E), MU, "NaN in data", "values of energy are not finite"),
    ],
)
def test_a_spectrum_that_cannot_be_used_says_why(energy, mu, reason, detail):
    with pytest.warns(SetAsideWarning, match=reason):
        table = infer([E, energy], [MU, mu], element="Co")
    assert list(table["reason"]) == ["", reason]
    assert detail in table["detail"][1]


def test_files_give_the_numbers_of_the_command(xa, tmp_path):
    path = write(tmp_path / "co.txt")
    shown = next(csv.DictReader(io.StringIO(xa("infer", path, "--element", "Co", "--format", "csv").stdout)))
    by_path, by_spectra = infer(path, element="Co"), infer(read_spectra(path), element="Co")
    assert by_path.equals(by_spectra)
    row = by_path.iloc[0]
    assert row["source"] == str(path)
    for name in ("OS", "OS_mean", "OS_lo", "OS_hi", "OS_p", "CN_mean", "ood_score"):
        assert row[name] == pytest.approx(float(shown[name]), rel=1e-6)
    assert "PSGO" not in by_path
    assert "PSGO" in infer(path, element="Co", everything=True)


def test_a_folder_gives_a_row_also_for_a_file_that_cannot_be_read(tmp_path):
    write(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("nothing of use")
    write(tmp_path / "c.txt", mu=2 * MU)
    with pytest.warns(SetAsideWarning, match="1 of 3"):
        table = infer(tmp_path, element="Co")
    assert [Path(source).name for source in table["source"]] == ["a.txt", "b.txt", "c.txt"]
    assert list(table["reason"]) == ["", "file not readable", ""]
    assert str(tmp_path) not in table["detail"][1]


def test_columns_of_a_file_may_be_named(tmp_path):
    path = tmp_path / "odd.txt"
    np.savetxt(path, np.column_stack([MU, E]), header="first second")
    assert np.isfinite(infer(path, element="Co", columns={"energy": "second", "mu": "first"})["OS_mean"][0])


def test_a_foil_calibrates_the_energies():
    moved = infer(E + 3, MU, element="Co", reference=MU).iloc[0]
    right = infer(E, MU, element="Co", reference=MU).iloc[0]
    bare = infer(E, MU, element="Co").iloc[0]
    assert moved["OS_mean"] == pytest.approx(right["OS_mean"], abs=0.02)
    assert moved["energy_shift_ev"] == pytest.approx(right["energy_shift_ev"] - 3, abs=0.1)
    assert moved["OS_hi"] - moved["OS_lo"] <= bare["OS_hi"] - bare["OS_lo"]


def test_a_model_is_loaded_once():
    config = load_config({"model": {"use": ["co-k"]}})
    assert loaded(config)[0] is loaded(config)[0]


def test_a_table_can_be_written_and_read_again(tmp_path):
    table = infer(E, [MU, 2 * MU], element="Co", sample=["a", "b"])
    assert list(table["sample"]) == ["a", "b"]
    rows = json.loads(table.to_json(orient="records"))
    assert rows[1]["sample"] == "b"
    table.to_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().count("\n") == 3
