"""FEFF's input as FEFF10 reads it, its output as FEFF10 writes it, and the running of a program in its place."""

import math
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from crystals import rock_salt, spinel
from deadline import wait_until
from pymatgen.core import Lattice, Structure

from xas_agent.agent.types.errors import InputError
from xas_agent.models.datasets.feff import (
    FeffEnded,
    FeffFailed,
    FeffSettings,
    checked,
    feff_input,
    find_feff,
    read_xmu,
    run_feff,
    site_of_input,
)

XMU = Path(__file__).resolve().parents[2] / "data/xmu.dat"
LICOO2 = Structure.from_spacegroup(
    "R-3m", Lattice.hexagonal(2.816, 14.05), ["Co", "Li", "O"], [[0, 0, 0], [0, 0, 0.5], [0, 0, 0.2605]]
)
CARDS = {"CONTROL", "PRINT", "EDGE", "COREHOLE", "S02", "EXCHANGE", "SCF", "FMS", "XANES", "RPATH", "LDOS"}


def cards(text: str) -> dict[str, list[str]]:
    words = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("*")]
    return {w[0]: w[1:] for w in words if w[0] in CARDS}


def block(text: str, name: str) -> list[list[str]]:
    """The lines after a card that FEFF reads, up to the next card."""
    lines = text.split(f"\n{name}")[1].splitlines()[1:]
    words = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("*")]
    end = next((k for k, w in enumerate(words) if w[0][0].isalpha()), len(words))
    return words[:end]


def program(folder: Path, body: str) -> str:
    """An executable that stands in for FEFF: a shell script with ``$XMU`` at hand."""
    path = folder / "feff"
    path.write_text(f"#!/bin/sh\nXMU='{XMU}'\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def site(tmp_path) -> Path:
    folder = tmp_path / "LiCoO2_Co000"
    folder.mkdir()
    (folder / "feff.inp").write_text(feff_input(LICOO2, 0, FeffSettings()))
    return folder


def test_the_cards_are_those_of_the_training_sets():
    assert cards(feff_input(LICOO2, 0, FeffSettings())) == {
        "CONTROL": ["1"] * 6,
        "PRINT": ["1", "0", "0", "0", "0", "0"],
        "EDGE": ["K"],
        "COREHOLE": ["RPA"],
        "S02": ["1"],
        "EXCHANGE": ["0", "0.0", "0.0", "2"],
        "SCF": ["4", "0", "100", "0.2", "3"],
        "FMS": ["5", "0"],
        "XANES": ["5", "0.05", "0.1"],
        "RPATH": ["-1"],
    }


def test_the_cluster_is_the_site_s_surroundings():
    text = feff_input(LICOO2, 1, FeffSettings(cluster_a=6.0))
    potentials = block(text, "POTENTIALS")
    assert [(int(p[0]), int(p[1]), p[2]) for p in potentials] == [
        (0, 27, "Co"),
        (1, 27, "Co"),
        (2, 3, "Li"),
        (3, 8, "O"),
    ]
    atoms = block(text, "ATOMS")
    assert [float(x) for x in atoms[0][:3]] == [0, 0, 0]
    assert [int(a[3]) for a in atoms].count(0) == 1
    distances = [np.linalg.norm([float(x) for x in a[:3]]) for a in atoms]
    np.testing.assert_allclose(distances, sorted(distances), atol=1e-4)
    assert 5 < distances[-1] <= 6
    co_o = math.sqrt(2.816**2 / 3 + ((1 / 3 - 0.2605) * 14.05) ** 2)
    np.testing.assert_allclose(distances[1:7], co_o, atol=1e-4)
    assert all(a[4] == "O" for a in atoms[1:7])
    assert text.rstrip().endswith("END")
    assert max(map(len, text.splitlines())) < 150, "FEFF reads no more of a line"


def test_the_amounts_are_the_cell_s_and_not_the_cluster_s():
    """As in the training rows, and as the crystal is neutral: of LaNiO3's cluster more than a quarter are La."""
    perovskite = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.84), ["La", "Ni", "O"], [[0.5] * 3, [0, 0, 0], [0.5, 0, 0]]
    )
    potentials = block(feff_input(perovskite, 1, FeffSettings()), "POTENTIALS")
    assert [(p[2], float(p[5])) for p in potentials] == [("Ni", 0.0001), ("La", 1), ("Ni", 1), ("O", 3)]


def test_an_absorber_without_another_of_its_element_in_the_cluster_has_its_amount():
    diluted = Structure(Lattice.cubic(8.0), ["Fe", "O", "O"], [[0, 0, 0], [0.25, 0, 0], [0.5, 0, 0]])
    potentials = block(feff_input(diluted, 0, FeffSettings()), "POTENTIALS")
    assert [(p[2], float(p[5])) for p in potentials] == [("Fe", 1), ("O", 2)]


def test_the_atoms_are_on_the_list_of_their_potential():
    text = feff_input(LICOO2, 0, FeffSettings())
    symbol = {p[0]: p[2] for p in block(text, "POTENTIALS")}
    assert all(symbol[a[3]] == a[4] for a in block(text, "ATOMS"))


def test_cards_of_one_s_own():
    settings = FeffSettings(edge="L3", fms_a=7.5, cards={"S02": "1.0", "LDOS": "-20 20 0.1", "SCF": "6 0 30 0.1 1"})
    found = cards(feff_input(LICOO2, 0, settings))
    assert found["EDGE"] == ["L3"]
    assert found["S02"] == ["1.0"]
    assert found["LDOS"] == ["-20", "20", "0.1"]
    assert found["SCF"] == ["6", "0", "30", "0.1", "1"]
    assert found["FMS"] == ["7.5", "0"]


def test_oxidation_states_do_not_reach_the_input():
    decorated = LICOO2.copy()
    decorated.add_oxidation_state_by_element({"Li": 1, "Co": 3, "O": -2})
    assert feff_input(decorated, 0, FeffSettings()) == feff_input(LICOO2, 0, FeffSettings())


def test_partial_occupancies_are_refused():
    shared = Structure(Lattice.cubic(4.2), [{"Ni": 0.5, "Co": 0.5}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(ValueError, match="partial occupancies"):
        feff_input(shared, 0, FeffSettings())


@pytest.mark.parametrize("index", [0, 3, 8])
def test_the_site_is_found_again_from_the_input(tmp_path, index):
    crystal = spinel("Co", 8.08, 0.2635)
    (tmp_path / "feff.inp").write_text(feff_input(crystal, index, FeffSettings(cluster_a=6.0)))
    structure, found = site_of_input(tmp_path / "feff.inp")
    assert len(structure) == len(crystal)
    assert found == (8 if index == 8 else 0), "an equivalent site"


def test_sites_that_differ_by_the_elements_around_them_only(tmp_path):
    """Ordered cations on a rock salt lattice: each has the same distances."""
    ordered = rock_salt("Co", 4.2)
    ordered.replace(3, "Ni")
    ordered.make_supercell([2, 1, 1])
    ordered.replace(next(i for i, s in enumerate(ordered) if s.specie.symbol == "Ni"), "Co")
    cobalt = [i for i, s in enumerate(ordered) if s.specie.symbol == "Co"]
    for i in cobalt:
        (tmp_path / "feff.inp").write_text(feff_input(ordered, i, FeffSettings(cluster_a=5.0)))
        structure, found = site_of_input(tmp_path / "feff.inp")
        near = [sorted((n.specie.symbol, round(n.nn_distance, 3)) for n in s.get_neighbors(s[k], 4.5))
                for s, k in ((ordered, i), (structure, found))]  # fmt: skip
        assert near[0] == near[1]


def test_an_input_by_another_program_has_no_cell(tmp_path):
    (tmp_path / "feff.inp").write_text(" TITLE Cu\n EDGE K\n ATOMS\n 0 0 0 0 Cu 0.0\n END\n")
    with pytest.raises(ValueError, match="not generated by pymatgen"):
        site_of_input(tmp_path / "feff.inp")


def test_a_spectrum_is_read_as_it_was_written():
    energy, mu = read_xmu(XMU)
    assert energy.shape == mu.shape == (109,)
    assert energy[0] == pytest.approx(7711.554)
    assert mu[0] == pytest.approx(2.46745e-2)
    assert mu[-40:].mean() == pytest.approx(1.0, abs=0.05)
    assert 0.5 < mu.max() < 2
    # As its card XANES said: k = 5 / Å at the end, from the Fermi level on.
    assert energy[-1] - energy[10] == pytest.approx(3.81 * 25, abs=0.1)


def test_fortran_s_exponents_of_three_digits(tmp_path):
    lines = XMU.read_text().splitlines()
    first = next(k for k, line in enumerate(lines) if not line.startswith("#"))
    lines[first] = lines[first].replace("2.46745E-02", "2.46745-102")
    (tmp_path / "xmu.dat").write_text("\n".join(lines))
    _, mu = read_xmu(tmp_path / "xmu.dat")
    assert mu[0] == 2.46745e-102


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[: t.index("7712.926")], "expected as many, and 20 or more"),
        (lambda t: t.replace("2.73294E-02", "NaN"), "not finite"),
        (lambda t: t.replace("7712.278", "7711.111"), "do not rise"),
        (lambda t: t.replace("   7712.278", "***********"), "not FEFF's table"),
        (lambda t: t[: t.rindex("\n    78") + 40], "inhomogeneous"),
        (lambda t: re.sub(r"E([+-]\d\d)", r"E-04", t), "not 1: not divided by the atomic background"),
        (lambda t: "", "six columns"),
    ],
)
def test_what_is_no_spectrum_is_said(tmp_path, change, message):
    (tmp_path / "xmu.dat").write_text(change(XMU.read_text()))
    with pytest.raises(ValueError, match=message):
        read_xmu(tmp_path / "xmu.dat")


def test_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match=r"energies \(30,\), μ \(29,\)"):
        checked(np.arange(30.0), np.ones(29))


def test_feff_is_found_on_the_path_or_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no feff or feff10 or feff9 on the PATH: install FEFF10"):
        find_feff()
    found = program(tmp_path, "true")
    assert find_feff() == found
    assert find_feff(found) == found
    with pytest.raises(InputError, match="no feff99 on the PATH"):
        find_feff("feff99")


def test_a_run_leaves_the_spectrum_and_nothing_else(site, tmp_path):
    run_feff(site, program(tmp_path, "test -f feff.inp && echo potentials > pot.bin && cp $XMU xmu.dat"), 60)
    assert sorted(p.name for p in site.iterdir()) == ["feff.inp", "xmu.dat"]
    assert (site / "xmu.dat").read_text() == XMU.read_text()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "echo 'No atoms or overlap cards'; exit 1",
            "no xmu.dat; exit code 1, last output: No atoms or overlap cards",
        ),
        ("exit 0", "no xmu.dat; exit code 0, last output: none"),
        ("head -c 3000 $XMU > xmu.dat", "exit code 0"),
        ("cp $XMU xmu.dat; kill -9 $$", "ended by a signal"),
        ("cp $XMU xmu.dat; exit 137", "ended by a signal"),
        ("cp $XMU xmu.dat; kill -SEGV $$", "ended by a signal"),
        (
            "echo 'FRNRM Could not'; echo 'Cannot determine Norman radius -- quitting.'; echo more; exit 2",
            "no xmu.dat; exit code 2, output: Cannot determine Norman radius -- quitting",
        ),
        (
            "echo ':WARNING Convergence not reached; ran out of iterations.'; cp $XMU xmu.dat",
            "no self-consistency; exit code 0, output: :WARNING Convergence not reached",
        ),
    ],
)
def test_a_failed_run_says_why_and_leaves_its_log(site, tmp_path, body, message):
    with pytest.raises(FeffFailed, match=message):
        run_feff(site, program(tmp_path, body), 60)
    assert not (site / "xmu.dat").exists()
    assert (site / "work/feff.log").exists()
    run_feff(site, program(tmp_path, "cp $XMU xmu.dat"), 60)
    assert not (site / "work").exists()


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_spectrum_with_a_spike_is_broken(site, tmp_path):
    with pytest.raises(FeffFailed, match=r"a spike of μ above 1\.2"):
        run_feff(site, program(tmp_path, "cp $XMU xmu.dat"), 60, highest=1.2)


@pytest.mark.parametrize(("body", "ended"), [("kill -9 $$", True), ("exit 143", True), ("kill -SEGV $$", False)])
def test_a_program_that_others_ended_has_not_failed_by_itself(site, tmp_path, body, ended):
    with pytest.raises(FeffFailed) as told:
        run_feff(site, program(tmp_path, body), 60)
    assert isinstance(told.value, FeffEnded) == ended


def test_the_ladder():
    ladder = FeffSettings(fms_a=7.0).ladder()
    assert [(s.fms_a, s.scf_mixing, s.cluster_a) for s in ladder] == [(7, 0.2, 6.5), (7, 0.05, 6.5), (7, 0.05, 8.5)]
    assert cards(feff_input(LICOO2, 0, ladder[1]))["SCF"] == ["4", "0", "100", "0.05", "3"]


def test_a_run_that_takes_too_long_is_ended_with_all_that_it_started(site, tmp_path):
    started = tmp_path / "pid"
    body = f"sleep 600 & echo $! > {started}; wait"
    with pytest.raises(FeffFailed, match=r"not done after 0\.5 s"):
        run_feff(site, program(tmp_path, body), 0.5)
    child = int(started.read_text())
    wait_until(lambda: gone(child))


def test_ctrl_c_ends_the_program_too(site, tmp_path):
    started = tmp_path / "pid"
    feff = program(tmp_path, f"echo $$ > {started}; sleep 600")
    load = "import pathlib; from xas_agent.models.datasets.feff import run_feff"
    code = f"{load}; run_feff(pathlib.{site!r}, {feff!r}, 600)"
    ours = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait_until(lambda: started.exists() and started.read_text().strip())
    ours.send_signal(signal.SIGINT)
    assert ours.wait(60) == -signal.SIGINT
    wait_until(lambda: gone(int(started.read_text())))


def test_ctrl_c_while_the_program_starts_ends_it(site, tmp_path, monkeypatch):
    pids = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            pids.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_feff(site, program(tmp_path, "sleep 600"), 600)
    wait_until(lambda: gone(pids[0]))
