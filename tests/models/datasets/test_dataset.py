"""Folders of structures, of FEFF runs and of Materials Project documents, to the form that models are trained on."""

import csv
import gzip
import json
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crystals import rock_salt, spinel
from deadline import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pymatgen.core import Lattice, Structure

from xas_agent.agent.types.errors import InputError
from xas_agent.agent.types.grid import bin_means
from xas_agent.app.jobs.dataset import collect_runs, compute, convert_documents, label_structures, state
from xas_agent.models.datasets.batch import DIED, each, replacing
from xas_agent.models.datasets.dataset import SplitSettings, lengthen, split_materials
from xas_agent.models.datasets.feff_runs import held
from xas_agent.models.datasets.structures import DESCRIPTORS, describe, quiet
from xas_agent.models.training.data import load_feff

XMU = Path(__file__).resolve().parents[2] / "data/xmu.dat"
SPLIT: dict[str, Any] = {"val_fraction": 0.3, "seed": 0, "jobs": 1}


def crystal(group: str, lattice: Lattice, elements: list[str], places: list[list[float]]) -> Structure:
    with quiet():
        return Structure.from_spacegroup(group, lattice, elements, places)


COO = rock_salt("Co", 4.26)
NIO = rock_salt("Ni", 4.177)
CO3O4 = spinel("Co", 8.08, 0.2635)
LICOO2 = crystal("R-3m", Lattice.hexagonal(2.816, 14.05), ["Co", "Li", "O"], [[0, 0, 0], [0, 0, 0.5], [0, 0, 0.2605]])
SHARED = Structure(Lattice.cubic(4.2), [{"Ni": 0.5, "Co": 0.5}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def structures(tmp_path) -> Path:
    """One of each kind of file, one that is partly occupied, and one that is no structure."""
    folder = tmp_path / "structures"
    (folder / "deep/LiCoO2").mkdir(parents=True)
    COO.to(filename=str(folder / "CoO.cif"))
    LICOO2.to(filename=str(folder / "deep/LiCoO2/POSCAR"))
    (folder / "Co3O4.json").write_text(json.dumps(CO3O4.as_dict()))
    (folder / "NiO.json").write_text(json.dumps(NIO.as_dict()))
    (folder / "mixed.json").write_text(json.dumps({"id": "Ni0.5Co0.5O", "structure": SHARED.as_dict()}))
    (folder / "broken.cif").write_text("data_broken\n")
    return folder


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as f:
        return {row["id"]: row for row in csv.DictReader(f)}


def stand_in(folder: Path, body: str) -> str:
    """A program in FEFF's place: writes a true xmu.dat, or does what ``body`` says first."""
    path = folder / "feff"
    path.write_text(f"#!/bin/sh\necho run >> '{folder}/runs.log'\n{body}\ncp '{XMU}' xmu.dat\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def runs_of(folder: Path) -> int:
    log = folder / "runs.log"
    return len(log.read_text().split()) if log.exists() else 0


def feff(structures: Path, runs: Path, program: str | None, **options: Any) -> str:
    given = {"absorber": "Co", "config": None, "write_only": False, "again": False, "jobs": 1, **options}
    return compute(structures, runs=runs, program=program, **given)


def test_labels_of_a_folder_of_structures(structures, tmp_path):
    said = label_structures(structures, "Co", "co", tmp_path / "out", **SPLIT)
    rows = table(tmp_path / "out/co.csv")
    assert list(rows) == ["Co3O4_Co000", "Co3O4_Co008", "CoO_Co000", "LiCoO2_Co000"]
    assert list(rows["CoO_Co000"]) == ["id", "material", "formula", "kind", "site", "natoms", "split", *DESCRIPTORS]
    assert [r["CN"] for r in rows.values()] == ["4", "6", "6", "6"]
    assert [r["OS_mean"] for r in rows.values()] == ["2.6667", "2.6667", "2.0", "3.0"]
    assert rows["LiCoO2_Co000"]["PSGO"] == "12"
    assert rows["CoO_Co000"]["mean_bond"] == "2.13"
    assert rows["Co3O4_Co000"]["split"] == rows["Co3O4_Co008"]["split"]
    assert said.endswith("co.csv: 4 rows of 3 materials, 1 of them for validation, 2 failed") or "2 rows" in said


def test_labels_are_kept_and_not_made_again(structures, tmp_path, monkeypatch):
    out = tmp_path / "out"
    label_structures(structures, "Co", "co", out, **SPLIT)
    first = (out / "co.csv").read_bytes()
    kept = (out / "co.labels.jsonl").read_text()
    # A line that the end of an earlier call tore is made again; the others are not.
    (out / "co.labels.jsonl").write_text(kept[:-20])
    asked: list[list[int]] = []

    def counting(structure: Structure, sites: list[int]) -> list[dict[str, float]]:
        asked.append(sites)
        return describe(structure, sites)

    monkeypatch.setattr("xas_agent.models.datasets.dataset.describe", counting)
    label_structures(structures, "Co", "co", out, **SPLIT)
    assert len(asked) == 1
    assert (out / "co.csv").read_bytes() == first
    assert sorted((out / "co.labels.jsonl").read_text().splitlines()) == sorted(kept.splitlines())


def test_a_changed_structure_is_labelled_anew(structures, tmp_path):
    out = tmp_path / "out"
    label_structures(structures, "Co", "co", out, **SPLIT)
    COO.copy().scale_lattice(80.0).to(filename=str(structures / "CoO.cif"))
    label_structures(structures, "Co", "co", out, **SPLIT)
    assert float(table(out / "co.csv")["CoO_Co000"]["mean_bond"]) == pytest.approx(80 ** (1 / 3) / 2, abs=1e-4)


def test_lines_name_the_site_that_is_meant(tmp_path):
    lines = [{"id": "spinel_Co008", "structure": CO3O4.as_dict()}, {"id": "NiO_Ni000", "structure": NIO.as_dict()},
             {"material_id": "mp-1", "structure": COO.as_dict()}]  # fmt: skip
    with gzip.open(tmp_path / "structures.jsonl.gz", "wt") as f:
        f.writelines(json.dumps(line) + "\n" for line in lines)
    label_structures(tmp_path / "structures.jsonl.gz", "Co", "co", tmp_path, **SPLIT)
    rows = table(tmp_path / "co.csv")
    assert {i: (r["material"], r["site"]) for i, r in rows.items()} == {
        "spinel_Co008": ("spinel", "8"),
        "mp-1_Co000": ("mp-1", "0"),
    }


@pytest.mark.parametrize(
    ("absorber", "message"),
    [("Cu", "no Cu site in 6 files"), ("cobalt", "absorber 'cobalt': expected the symbol of an element")],
)
def test_an_absorber_that_is_not_there(structures, tmp_path, absorber, message):
    with pytest.raises(InputError, match=message):
        label_structures(structures, absorber, "x", tmp_path, **SPLIT)


def test_a_folder_without_structures(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=r"no structures; expected CIF, POSCAR or pymatgen's JSON"):
            label_structures(path, "Co", "x", tmp_path, **SPLIT)


def test_from_structures_through_feff_to_data_that_are_trained_on(structures, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "data"
    # FEFF stumbles over one site: the others go on.
    program = stand_in(
        tmp_path, "grep -q 'TITLE Reduced formula:  LiCoO2' feff.inp && { echo 'SCF diverged'; exit 1; }"
    )
    assert feff(structures, runs, program).endswith("3 runs done, 0 there already, 3 failed")
    assert (runs / "LiCoO2_Co000/work/feff.log").read_text() == "SCF diverged\n"
    assert collect_runs(runs, None, "co", out, **SPLIT).startswith(f"{out}/co.npz and .csv: 3 rows of 2 materials")

    program = stand_in(tmp_path, "")
    done = runs_of(tmp_path)
    said = feff(structures, runs, program)
    assert said.endswith("3 runs there already, 1 failed before (--again tries them again), 2 failed")
    assert runs_of(tmp_path) == done
    assert feff(structures, runs, program, again=True).endswith("1 run done, 3 there already, 2 failed")
    assert runs_of(tmp_path) == done + 1, "what was computed is not computed again"
    collect_runs(runs, "Co", "co", out, **SPLIT)

    data = load_feff(out, "co", ("OS", "CN", "PSGO", "NNRS"))
    assert data.ids.tolist() == ["Co3O4_Co000", "Co3O4_Co008", "CoO_Co000", "LiCoO2_Co000"]
    assert data.material.tolist() == ["Co3O4", "Co3O4", "CoO", "LiCoO2"]
    assert data.labels["CN"].tolist() == [4, 6, 6, 6]
    np.testing.assert_allclose(data.labels["OS_mean"], [8 / 3, 8 / 3, 2, 3], atol=1e-4)
    np.testing.assert_array_equal(data.energy[2], np.loadtxt(XMU)[:, 0])
    np.testing.assert_array_equal(data.mu[2], np.loadtxt(XMU)[:, 3])
    assert set(data.split) == {"train", "val"}


def test_without_feff_the_inputs_are_written_and_said(structures, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"the inputs of 4 sites are in .*runs; no feff or feff10 .*install FEFF10"):
        feff(structures, tmp_path / "runs", None)
    assert len(list((tmp_path / "runs").glob("*/feff.inp"))) == 4
    assert "inputs of 4 sites to run, 2 failed" in feff(structures, tmp_path / "runs", None, write_only=True)


def test_spectra_of_other_settings_are_left_alone(structures, tmp_path):
    runs = tmp_path / "runs"
    feff(structures / "CoO.cif", runs, stand_in(tmp_path, ""))
    config = tmp_path / "feff.yaml"
    config.write_text("fms_a: 7.0\ncards: {S02: '1.0'}\n")
    assert feff(structures / "CoO.cif", runs, stand_in(tmp_path, ""), config=config).endswith("1 failed")
    assert "FMS 5 0" in (runs / "CoO_Co000/feff.inp").read_text()
    assert runs_of(tmp_path) == 1
    config.write_text("fms_radius: 7.0\n")
    with pytest.raises(InputError, match=r"feff\.yaml: unknown key fms_radius; expected one of cards, .*fms_a"):
        feff(structures, runs, None, config=config)


def test_the_spectra_of_another_run_are_not_waited_for(structures, tmp_path):
    with held(tmp_path / "runs"), pytest.raises(InputError, match="another process runs FEFF there"):
        feff(structures, tmp_path / "runs", None)


def job(structure: Structure, name: str, index: int, **about: Any) -> dict[str, Any]:
    return {
        "id": name,
        "absorber": structure[index].specie.symbol,
        "site": index,
        "lattice": structure.lattice.matrix.tolist(),
        "species": [s.specie.symbol for s in structure],
        "abc": structure.frac_coords.tolist(),
        **about,
    }


@pytest.fixture
def queue(tmp_path) -> Path:
    """Jobs of two absorbers, not in the order of their names, and one that is no job."""
    jobs = [
        job(NIO, "NiO_Ni000", 0, kind="reference", split="val"),
        job(COO, "CoO_Co000", 0, kind="reference", split="val"),
        job(CO3O4, "Co3O4_Co008", 8, kind="mp", split="train"),
        job(LICOO2, "LiCoO2_O006", 6, kind="layered", split="train"),
        {**job(COO, "CoO_Co004", 4), "absorber": "Co"},
    ]
    path = tmp_path / "jobs.jsonl.gz"
    with gzip.open(path, "wt") as f:
        f.writelines(json.dumps(line) + "\n" for line in jobs)
    return path


def order(folder: Path) -> list[str]:
    """The formulas in the order in which the stand-in ran."""
    return (folder / "order.log").read_text().split()


ORDER = "sed -n 's/TITLE Reduced formula: *//p' feff.inp >> {}/order.log"


def test_a_queue_of_jobs_in_its_order_to_rows_with_their_splits(queue, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "data"
    said = feff(queue, runs, stand_in(tmp_path, ORDER.format(tmp_path)), absorber=None)
    assert said.endswith("4 runs done, 0 there already, 1 failed")
    assert order(tmp_path) == ["NiO", "CoO", "Co3O4", "LiCoO2"]
    assert collect_runs(runs, "Co", "co", out, **SPLIT).endswith("2 rows of 2 materials, 1 of them for validation")
    rows = table(out / "co.csv")
    assert {i: (r["material"], r["kind"], r["site"], r["split"], r["CN"]) for i, r in rows.items()} == {
        "CoO_Co000": ("CoO", "reference", "0", "val", "6"),
        "Co3O4_Co008": ("Co3O4", "mp", "8", "train", "6"),
    }
    assert state(runs, config=None).endswith("all: 4 done, 0 failed, 0 waiting")


def test_structures_that_are_no_jobs_need_an_absorber(structures, tmp_path):
    with pytest.raises(InputError, match="no job: name the absorber"):
        feff(structures / "CoO.cif", tmp_path / "runs", None, absorber=None)


def test_what_fails_is_tried_with_other_settings_and_told(queue, tmp_path):
    """CoO succeeds with a smaller mixing; NiO never does."""
    fails = "echo 'Cannot determine Norman radius'; exit 2;"
    program = stand_in(
        tmp_path,
        f"grep -q 'formula:  NiO$' feff.inp && {{ {fails} }}\n"
        f"grep -q 'formula:  CoO$' feff.inp && grep -q 'SCF.* 0.2 3' feff.inp && {{ {fails} }}",
    )
    runs = tmp_path / "runs"
    assert feff(queue, runs, program, absorber=None).endswith("3 runs done, 0 there already, 2 failed")
    assert "SCF 4 0 100 0.05 3" in (runs / "CoO_Co000/feff.inp").read_text(), "the input of the spectrum beside it"
    attempts = json.loads((runs / "CoO_Co000/attempts.json").read_text())
    assert [a["changed"] for a in attempts] == [{}, {"scf_mixing": 0.05}]
    assert [bool(a["why"]) for a in attempts] == [True, False]
    told = state(runs, config=None).splitlines()
    assert told[0].startswith("Co: 2 done (1 after a retry), 0 failed, 0 waiting;")
    assert told[1].startswith("Ni: 0 done (0 after a retry), 1 failed, 0 waiting;")
    assert told[2] == "    1 no xmu.dat; exit code 2, output: Cannot determine Norman radius"
    assert told[-1] == "all: 3 done, 1 failed, 0 waiting"
    count = runs_of(tmp_path)
    said = feff(queue, runs, program, absorber=None)
    assert said.endswith("3 runs there already, 1 failed before (--again tries them again), 1 failed")
    assert runs_of(tmp_path) == count
    feff(queue, runs, stand_in(tmp_path, ""), absorber=None, again=True)
    assert "SCF 4 0 100 0.2 3" in (runs / "NiO_Ni000/feff.inp").read_text(), "again from the beginning"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_queue_that_was_killed_goes_on_where_it_was(queue, tmp_path, number):
    """In the midst of the first job's second attempt."""
    runs, asleep = tmp_path / "runs", tmp_path / "asleep"
    slow = f"grep -q 'SCF.* 0.2 3' feff.inp && exit 2; echo $$ > {asleep}; sleep 600"
    line = [sys.executable, "-m", "xas_agent", "dataset", "feff", queue, "--out", runs, "--jobs", "1", "--feff"]
    ours = subprocess.Popen([*map(str, line), stand_in(tmp_path, slow)], stderr=subprocess.DEVNULL)
    wait_until(lambda: asleep.exists() and asleep.read_text().strip())
    ours.send_signal(number)
    assert ours.wait(60) == (143 if number == signal.SIGTERM else -9)
    program = Path(f"/proc/{int(asleep.read_text())}")
    if number == signal.SIGTERM:
        assert not program.exists() or program.joinpath("stat").read_text().split()[2] == "Z"
    else:  # nobody ends it, and what it writes reaches no spectrum
        os.killpg(int(program.name), signal.SIGKILL)
    assert feff(queue, runs, stand_in(tmp_path, ""), absorber=None).endswith("4 runs done, 0 there already, 1 failed")
    attempts = json.loads((runs / "NiO_Ni000/attempts.json").read_text())
    assert [a["changed"] for a in attempts] == [{}, {"scf_mixing": 0.05}]
    assert "SCF 4 0 100 0.05 3" in (runs / "NiO_Ni000/feff.inp").read_text()


def test_inputs_are_not_made_again(queue, tmp_path, monkeypatch):
    """Which would take a queue of thousands minutes whenever it goes on."""
    said = [feff(queue, tmp_path / "runs", None, absorber=None, write_only=True)]
    monkeypatch.setattr("xas_agent.models.datasets.feff_runs.feff_input", None)
    said.append(feff(queue, tmp_path / "runs", None, absorber=None, write_only=True))
    assert said[0] == said[1]
    assert "inputs of 4 sites to run" in said[0]


def test_runs_of_other_settings_are_tried_from_the_beginning(queue, tmp_path):
    runs, config = tmp_path / "runs", tmp_path / "feff.yaml"
    feff(queue, runs, stand_in(tmp_path, "exit 2"), absorber=None)
    config.write_text("scf_a: 5.0\n")
    said = feff(queue, runs, stand_in(tmp_path, ""), absorber=None, config=config)
    assert said.endswith("4 runs done, 0 there already, 1 failed")
    assert "SCF 5 0 100 0.2 3" in (runs / "NiO_Ni000/feff.inp").read_text()


def test_a_folder_without_runs_has_no_state(tmp_path):
    with pytest.raises(InputError, match="found no runs, expected a folder of xas-agent dataset feff"):
        state(tmp_path, config=None)


def test_runs_that_another_tool_of_pymatgen_s_wrote(structures, tmp_path):
    runs = tmp_path / "runs"
    feff(structures, runs, stand_in(tmp_path, ""))
    for about in runs.glob("*/site.json"):
        about.unlink()
    collect_runs(runs, None, "co", tmp_path, **SPLIT)
    rows = table(tmp_path / "co.csv")
    assert [r["CN"] for r in rows.values()] == ["4", "6", "6", "6"]
    materials = [r["material"] for r in rows.values()]
    assert materials[0] == materials[1]
    assert len(set(materials)) == 3
    assert {r["kind"] for r in rows.values()} == {""}


def test_a_folder_of_runs_that_holds_none_or_several(structures, tmp_path):
    runs = tmp_path / "runs"
    with pytest.raises(InputError, match="no such folder"):
        collect_runs(runs, None, "x", tmp_path, **SPLIT)
    feff(structures, runs, stand_in(tmp_path, ""), absorber="Ni")
    with pytest.raises(InputError, match="no FEFF run of Co that can be used"):
        collect_runs(runs, "Co", "x", tmp_path, **SPLIT)
    feff(structures / "CoO.cif", runs, stand_in(tmp_path, ""))
    with pytest.raises(InputError, match="runs of Co, Ni; name the absorber"):
        collect_runs(runs, None, "x", tmp_path, **SPLIT)
    collect_runs(runs, "Ni", "ni", tmp_path, **SPLIT)
    assert list(table(tmp_path / "ni.csv")) == ["NiO_Ni000"]


def document(structure: Structure, **changes: Any) -> dict[str, Any]:
    """An XAS document of the Materials Project, as mp-api's models write themselves to JSON."""
    energy, mu = np.loadtxt(XMU)[:, [0, 3]].T
    spectrum = {"@module": "pymatgen.analysis.xas.spectrum", "@class": "XAS", "x": energy.tolist(), "y": mu.tolist(),
                "structure": structure.as_dict(), "absorbing_element": {"element": "Co"}, "edge": "K",
                "spectrum_type": "XANES", "absorbing_index": None}  # fmt: skip
    head = {"task_id": "mp-1", "absorbing_element": "Co", "edge": "K", "spectrum_type": "XANES"}
    spectrum |= changes.pop("spectrum", {})
    return {**head, "spectrum": spectrum, **changes}


def test_documents_of_the_materials_project(tmp_path):
    short = {"x": np.linspace(7700, 7790, 60).tolist(), "y": np.linspace(0, 1, 60).tolist()}
    found = [
        document(COO, material_id="mp-19079"),
        document(CO3O4, task_id="mp-18748"),  # the mean over two kinds of site
        document(CO3O4, task_id="mp-2", spectrum={"absorbing_index": 8}),
        document(LICOO2, task_id="mp-3", spectrum=short),
        document(COO, material_id="mp-19079"),
        document(COO, edge="L3"),
        document(COO, spectrum_type="EXAFS"),
        document(COO, spectrum_type="EXAFS"),
        document(NIO, absorbing_element={"element": "Ni"}),
        {"material_id": "mp-4", "spectrum": None},
    ]
    (tmp_path / "xas.json").write_text(json.dumps(found))
    said = convert_documents([tmp_path / "xas.json"], "Co", "mp", tmp_path, **SPLIT)
    assert "4 rows of 4 materials" in said
    for left_out in ("2 Co K EXAFS", "1 Co L3 XANES", "1 Ni K XANES", "1 a second spectrum", "1 not an XAS document"):
        assert left_out in said
    data = load_feff(tmp_path, "mp", ("OS", "CN", "PSGO", "OCN"))
    assert data.ids.tolist() == ["mp-18748_Co000", "mp-19079_Co000", "mp-2_Co008", "mp-3_Co000"]
    np.testing.assert_array_equal(data.labels["CN"], [math.nan, 6, 6, 6])
    np.testing.assert_array_equal(data.labels["PSGO"], [48, 48, 48, 12])
    np.testing.assert_allclose(data.labels["OS_mean"], [8 / 3, 2, 8 / 3, 3], atol=1e-4)
    assert data.energy.shape == (4, 109)
    assert (data.energy[3, 0], data.energy[3, -1]) == (7700, 7790)


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[{}]", "found 1 not an XAS document")])
def test_json_of_another_kind(tmp_path, text, message):
    (tmp_path / "xas.json").write_text(text)
    with pytest.raises(InputError, match=message):
        convert_documents([tmp_path / "xas.json"], "Co", "mp", tmp_path, **SPLIT)


@settings(max_examples=60, deadline=None)
@given(
    steps=hnp.arrays(float, st.integers(2, 40), elements=st.floats(0.05, 3)),
    more=st.integers(0, 120),
    seed=st.integers(0, 99),
)
def test_a_lengthened_spectrum_is_the_same_spectrum(steps, more, seed):
    energy = 7700 + np.cumsum(steps)
    mu = np.random.default_rng(seed).uniform(0, 2, len(energy))
    longer, mu_longer = lengthen(energy, mu, len(energy) + more)
    assert len(longer) == len(mu_longer) == len(energy) + more
    assert (np.diff(longer) > 0).all()
    assert (longer[0], longer[-1]) == (energy[0], energy[-1])
    bounds = np.linspace(energy[0] - 1, energy[-1] + 1, 23)
    was, now = (bin_means(e, m[None], bounds) for e, m in ((energy, mu), (longer, mu_longer)))
    np.testing.assert_allclose(now, was, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(materials=st.lists(st.text(max_size=4), min_size=1, max_size=40), seed=st.integers(0, 5))
def test_a_split_keeps_its_share_and_its_draw(materials, seed):
    split = SplitSettings(val_fraction=0.2, seed=seed)
    sides = split_materials(materials, split)
    several = len(sides) > 1
    assert sides == split_materials(materials[::-1], split)
    assert list(sides.values()).count("val") == max(round(0.2 * len(sides)), int(several))
    assert set(split_materials(materials, SplitSettings(val_fraction=0.0)).values()) == {"train"}


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("before")

    def torn() -> None:
        with replacing(path) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        torn()
    assert path.read_text() == "before"
    with replacing(path) as beside:
        beside.write_text("after")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["after"]


def half(x: int) -> float | str:
    if x == 3:
        os.abort()
    return x / 2


@pytest.mark.slow
def test_an_item_that_its_process_dies_of_does_not_stop_the_others(tmp_path):
    """In a process of its own: pytest's modules are not there to be imported by name."""
    told = tmp_path / "told.py"
    told.write_text(
        "import os, sys\n"
        "from xas_agent.models.datasets.batch import each, DIED\n"
        "def half(x):\n    return os.abort() if x == 3 else x / 2\n"
        "if __name__ == '__main__':\n"
        "    seen = []\n"
        "    found = dict(each('halves', half, range(6), 2, lambda *a: seen.append(a), DIED))\n"
        "    print([found[k] for k in range(6)], seen[-1])\n"
    )
    done = subprocess.run([sys.executable, told], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == f"{[0.0, 0.5, 1.0, DIED, 2.0, 2.5]} ('halves', 6, 6)"


def test_in_this_process_items_come_in_order():
    told: list[tuple[str, int, int]] = []
    found = each("halves", half, [2, 4], 1, lambda *a: told.append(a), "died")
    assert list(found) == [(0, 1.0), (1, 2.0)]
    assert told == [("halves", 0, 2), ("halves", 1, 2), ("halves", 2, 2)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_command(structures, tmp_path):
    """In processes, as a user runs it."""

    def command(*args: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "xas_agent", "dataset", *map(str, args)]
        return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=120)

    program = stand_in(tmp_path, "")
    computed = command("feff", structures, "--absorber", "Co", "--out", "runs", "--feff", program, "--jobs", 2)
    assert computed.stdout == "runs: 4 runs done, 0 there already, 2 failed\n", computed.stderr
    assert "partial occupancies" in computed.stderr
    collected = command("collect", "runs", "--name", "co", "--jobs", 2)
    assert collected.stdout.startswith("data/co.npz and .csv: 4 rows of 3 materials"), collected.stderr
    assert len(load_feff(tmp_path / "data", "co", ("OS",))) == 4
    refused = command("label", "nowhere", "--absorber", "Co", "--name", "co")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("xas-agent: nowhere: no structures; expected CIF")
