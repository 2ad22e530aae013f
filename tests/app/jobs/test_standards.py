"""Standards with the answers that a user gets, and what follows from the offset of FEFF."""

import copy
import csv
import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logs import capture_logs

from xas_agent.agent.types import InputError
from xas_agent.app.config import Config
from xas_agent.app.jobs.known_compounds import KnownCompound, read_known
from xas_agent.app.jobs.offset_scan import OffsetScan, scan_offsets
from xas_agent.app.jobs.standards import flags_of, judge, misfit_sd_of, models_for, read_standards, shares_of
from xas_agent.models.card import find, installed, read_card, verify
from xas_agent.sim_beamline.spectra import ReferenceSpectra, absorption

E = np.concatenate([np.arange(7560.0, 7690.0, 5.0), np.arange(7690.0, 7800.0, 0.5), np.arange(7800.0, 8200.0, 4.0)])
SPECTRA = ReferenceSpectra(2.35)
HEADER = "file,element,compound,OS,CN,class,shift_ev,source\n"


def write(path: Path, mu: np.ndarray, error_ev: float = 0.0, foil: bool = False, minute: int | None = None) -> None:
    """Write a transmission scan whose energies are ``error_ev`` too high."""
    columns = [E + error_ev, np.full(len(E), 1e5), 1e5 * np.exp(-absorption(mu, E, 1.0, 0.4))]
    names = ["energy eV", "i0", "itrans"]
    if foil:
        columns.append(columns[-1] * np.exp(-absorption(SPECTRA.foil(E), E, 1.0, 0.2)))
        names.append("irefer")
    header = ["XDI/1.0", *(f"Column.{k}: {name}" for k, name in enumerate(names, 1))]
    header += ["Element.symbol: Co", "Element.edge: K"]
    header += [] if minute is None else [f"Scan.start_time: 2026-01-01 12:{minute:02}:00"]
    np.savetxt(path, np.column_stack(columns), header="\n".join([*header, "---"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """LiCoO2 with a foil, two charged cathodes without, the metal, a file of another element and one of words."""
    folder = tmp_path_factory.mktemp("standards")
    write(folder / "foil.xdi", SPECTRA.cathode(E, 1.0), 1.5, foil=True, minute=0)
    write(folder / "half.xdi", SPECTRA.cathode(E, 0.5), minute=5)
    write(folder / "shifted.xdi", SPECTRA.cathode(E, 0.5), 1.5, minute=10)
    write(folder / "metal.xdi", SPECTRA.foil(E))
    (folder / "zinc.dat").write_text("# energy mu\n" + "".join(f"{e + 1950:.2f} {e % 7:.3f}\n" for e in E))
    (folder / "words.dat").write_text("no numbers\n")
    (folder / "standards.csv").write_text(
        HEADER + "foil.xdi,Co,LiCoO2,3,6,,,here\n"
        "half.xdi,Co,Li0.5CoO2,3.5,6,,,there\n"
        "shifted.xdi,Co,Li0.5CoO2,3.5,6,oxide,-1.5,there\n"
        "metal.xdi,Co,Co foil,0,12,,,\n"
        "zinc.dat,Zn,ZnO,2,4,,,\n"
        "words.dat,Co,CoO,2,6,,,\n"
    )
    return folder


@pytest.fixture(scope="module")
def models(folder):
    return models_for(read_known(folder / "standards.csv"), (), Config())


def rows_of(judged) -> dict[str, dict[str, Any]]:
    return {j.known.path.name: j.row() for j in judged}


@pytest.mark.parametrize("name", ["foil.xdi", "half.xdi", "metal.xdi"])
def test_the_answer_is_that_of_infer(xa, folder, models, name):
    known = [one for one in read_known(folder / "standards.csv") if one.path.name == name]
    row = judge(read_standards(known), models, Config())[0].row()
    (inferred,) = json.loads(xa("infer", folder / name, "--format", "json").stdout)
    for d in ("OS", "CN"):
        found = {key: row[f"{d}_{key}"] for key in ("mean", "lo", "hi", "p")}
        assert found == pytest.approx({key: inferred[d][key] for key in found}, abs=1e-6)
    assert row["ood_score"] == pytest.approx(inferred["ood_score"], abs=1e-6)
    assert row["flags"] == ", ".join(inferred["flags"])


def test_verdicts_and_corrections(folder, models):
    judged = judge(read_standards(read_known(folder / "standards.csv")), models, Config())
    rows = rows_of(judged)
    assert rows["foil.xdi"]["calibrated_by"] == "foil"
    assert rows["foil.xdi"]["correction_ev"] == pytest.approx(-1.5, abs=0.1)
    assert (rows["half.xdi"]["calibrated_by"], rows["half.xdi"]["correction_ev"]) == ("none", 0.0)
    assert rows["metal.xdi"]["class"] == "metal"
    assert rows["metal.xdi"]["verdict"] == "flagged, as it must be"
    for name, os in (("foil.xdi", 3.0), ("half.xdi", 3.5), ("shifted.xdi", 3.5)):
        row = rows[name]
        assert row["error"] == pytest.approx(row["OS_mean"] - os)
        assert row["verdict"] == ("hit" if abs(row["OS_mean"] - os) <= 0.35 else "miss")
        assert row["inside"] == (row["OS_lo"] <= os <= row["OS_hi"])
    assert rows["zinc.dat"]["verdict"] == "set aside: no model for Zn; name one with --model"
    assert rows["words.dat"]["verdict"].startswith("set aside: found ")
    shares = {share.group: share for share in shares_of(judged)}
    assert [*shares] == ["oxides", "of one valence", "Co", "Zn"]
    assert {name: (s.answered, s.set_aside) for name, s in shares.items()} == {
        "oxides": (3, 2), "of one valence": (1, 2), "Co": (3, 1), "Zn": (0, 1),
    }  # fmt: skip
    oxides = [rows[name] for name in ("foil.xdi", "half.xdi", "shifted.xdi")]
    assert shares["oxides"].hits == sum(row["verdict"] == "hit" for row in oxides)
    assert shares["oxides"].inside == sum(row["inside"] for row in oxides)
    assert flags_of(judged) == {"metal": (1, 1)}


def test_the_misfit_makes_the_intervals_hold_nine_tenths(folder, models):
    known = read_known(folder / "standards.csv")[:3]
    read = [r for r in read_standards(known) for _ in range(10)]
    assert misfit_sd_of(judge(read[:9], models, Config())) is None  # too few
    # Oxidation states that are wrong by up to 1 e: the intervals hold some, and no physical limit cuts them off.
    read = [(replace(known, os=(known.os or 0) - k / 30), spectrum) for k, (known, spectrum) in enumerate(read)]
    judged = judge(read, models, Config())
    sd = misfit_sd_of(judged)
    assert sd is not None
    held = 0
    for j in judged:
        assert j.os is not None
        assert j.error is not None
        half = j.os.mean - j.os.lo if j.error > 0 else j.os.hi - j.os.mean
        held += abs(j.error) <= math.hypot(half, 1.645 * sd) + 1e-9
    assert sd > 0.05
    assert held == 28  # of 30: the quantile of a finite sample is ⌈0.9 · 31⌉
    wider = [replace_misfit(model, sd) for model in models]
    assert misfit_sd_of(judge(read, wider, Config())) == pytest.approx(sd, abs=0.02)  # of the card, not in addition
    assert shares_of(judge(read, wider, Config()))[0].inside in (27, 28)


def replace_misfit(model, sd: float):
    """Return the model with a misfit of OS in its domain."""
    changed = copy.copy(model)
    changed.edge = replace(model.edge, misfit_sd={"OS": sd})
    return changed


def test_the_order_of_the_rows_does_not_matter(folder, models):
    known = read_known(folder / "standards.csv")
    first = rows_of(judge(read_standards(known), models, Config()))
    for seed in range(3):
        random.Random(seed).shuffle(known)
        assert rows_of(judge(read_standards(known), models, Config())) == first


def test_a_shift_of_the_table_holds_where_no_foil_is(folder, models):
    read = read_standards(read_known(folder / "standards.csv"))
    rows = rows_of(judge(read, models, Config(), shifts=True))
    assert (rows["shifted.xdi"]["calibrated_by"], rows["shifted.xdi"]["correction_ev"]) == ("shift", -1.5)
    assert rows["shifted.xdi"]["OS_mean"] == pytest.approx(rows["half.xdi"]["OS_mean"], abs=1e-3)
    unshifted = rows_of(judge(read, models, Config()))["shifted.xdi"]
    assert unshifted["OS_mean"] != pytest.approx(rows["half.xdi"]["OS_mean"], abs=1e-2)


def test_another_offset_is_another_energy(folder, models):
    (known,) = (one for one in read_known(folder / "standards.csv") if one.path.name == "half.xdi")
    read = read_standards([known])
    scan = scan_offsets(read, models, Config(), 1.0)
    assert scan.changes_ev.tolist() == [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0]
    card = read_card(find("co-k"))
    assert scan.card_ev.tolist() == [card.feff_minus_experiment.value_ev]
    for change_ev in (-1.0, 0.0, 0.75):
        shift_ev = change_ev * card.domain.scale
        moved = Config.model_validate({"alignment": {"energy_shift_ev": shift_ev}})
        (judged,) = judge(read, models, moved)
        assert judged.os is not None
        (k,) = np.flatnonzero(scan.changes_ev == change_ev)
        assert scan.os[0, k] == pytest.approx(judged.os.mean, abs=1e-3)


def known(os: float | None, source: str, element: str = "Fe") -> KnownCompound:
    return KnownCompound(Path("a.xdi"), element, "FeO", "oxide", os, columns={"source": source})


def test_the_best_offset_is_found_over_all_and_by_source():
    changes = np.arange(-2.0, 2.25, 0.25)
    compounds = [known(2.0, "A"), known(3.0, "A"), known(2.0, "B"), known(3.0, "B"), known(None, "B")]
    # The answers rise by 0.4 e per eV; those of A are right at 1 eV above the card's offset, those of B at 0.5 eV.
    os = np.array([2.0, 3.0, 2.0, 3.0, 2.5])[:, None] + 0.4 * (changes - np.array([1.0, 1.0, 0.5, 0.5, 0.0])[:, None])
    os[1, :2] = np.nan
    scan = OffsetScan(compounds, np.full(5, 4.0), changes, os)
    assert scan.fitting_ev()[:4] == pytest.approx([5.0, 5.0, 4.5, 4.5])
    assert np.isnan(scan.fitting_ev()[4])
    every, a, b = scan.fits()
    assert [fit.group for fit in (every, a, b)] == ["Fe", "Fe, A", "Fe, B"]
    assert (every.standards, every.card_ev, 4.5 <= every.best_ev <= 5.0) == (4, 4.0, True)
    assert every.card_error == pytest.approx(0.3)
    assert every.error == pytest.approx(0.1)
    assert (every.gain, every.slope) == pytest.approx((1.0, 0.4))
    assert [(fit.best_ev, fit.hits, fit.is_at_end) for fit in (a, b)] == [(5.0, 2, False), (4.5, 2, False)]
    assert (a.error, a.bias, a.scatter) == pytest.approx((0, 0, 0), abs=1e-9)


def test_answers_in_the_middle_have_a_small_error_and_no_gain():
    changes = np.arange(-1.0, 1.25, 0.25)
    blind = OffsetScan([known(2.0, ""), known(3.0, "")], np.zeros(2), changes, np.full((2, len(changes)), 2.5))
    (fit,) = blind.fits()
    assert (fit.error, fit.gain, fit.slope) == pytest.approx((0.5, 0.0, 0.0), abs=1e-9)
    (fit,) = OffsetScan([known(2.0, ""), known(2.0, "")], np.zeros(2), changes, blind.os).fits()
    assert np.isnan(fit.gain)


def test_the_command_writes_tables_and_figures(xa, folder, tmp_path):
    table, out = tmp_path / "mine.csv", tmp_path / "judged"
    table.write_text((folder / "standards.csv").read_text())
    args = ("standards", table, "--spectra", folder, "--out", out, "--scan-offset", 0.5, "--strict")
    said = xa(*args, code=4).stdout
    assert "set aside: 2 of 6 standards" in said
    assert "metals flagged: 1 of 1" in said
    assert {path.name for path in out.iterdir()} == {
        "standards.csv", "standards.json", "standards.png", "offsets.csv", "offsets.png",
    }  # fmt: skip
    for figure in out.glob("*.png"):
        assert figure.read_bytes().startswith(b"\x89PNG")
    content = json.loads((out / "standards.json").read_text(encoding="utf-8"))
    assert content["models"]["Co"]["sha256"] == read_card(find("co-k")).sha256
    assert [row["source"] for row in content["standards"]][:3] == ["here", "there", "there"]
    with (out / "offsets.csv").open(encoding="utf-8") as file:
        assert len([*csv.DictReader(file)]) == 5 * 5  # all but zinc, at five offsets
    # The table that is written is one that is read.
    again = xa("standards", out / "standards.csv", "--spectra", folder).stdout
    assert said.startswith(again.partition("\nset aside")[0])


def test_the_answers_are_written_into_the_card_of_the_model(xa, folder, tmp_path):
    mine = Path(shutil.copytree(find("co-k"), tmp_path / "mine"))
    before = verify(mine)
    said = xa("standards", folder / "standards.csv", "--model", mine, "--write", "--out", tmp_path / "judged").stdout
    assert said.endswith(f"\n{mine}/card.yaml\n")
    card = verify(mine)
    assert card.model_copy(update={"standards": before.standards}) == before
    rows = {row["file"]: row for row in json.loads((tmp_path / "judged/standards.json").read_text())["standards"]}
    # Oxides by their oxidation state, then the metal; neither zinc nor the file that has no answer.
    for standard, file in zip(card.standards, ("foil.xdi", "half.xdi", "shifted.xdi", "metal.xdi"), strict=True):
        row = rows[file]
        assert (standard.compound, standard.known) == (row["compound"], float(row["OS"]))
        answered = [row[key] for key in ("OS_mean", "OS_lo", "OS_hi", "ood_score")]
        assert [standard.mean, standard.lo, standard.hi, standard.score] == pytest.approx(answered, abs=0.0051)
        assert (standard.flagged, standard.verdict) == (row["flagged"], row["verdict"])
    first, readme = card.standards[0], (mine / "README.md").read_text(encoding="utf-8")
    answer = f"{first.mean:.2f} ({first.lo:.2f}…{first.hi:.2f}) | {first.score:.2f} | {first.verdict}"
    assert f"| LiCoO2 | 3 | {answer} |" in readme
    hits = sum(s.verdict == "hit" for s in card.standards)
    assert f"Of 3 oxides {hits} are hits" in readme
    assert f"- {{compound: LiCoO2, known: 3.0, mean: {first.mean}, " in xa("models", "show", mine, "--full").stdout
    # The table of another day replaces it.
    table = tmp_path / "metal.csv"
    table.write_text(HEADER + "metal.xdi,Co,Co | foil,,12,,,\n")
    xa("standards", table, "--spectra", folder, "--model", mine, "--write")
    (metal,) = read_card(mine).standards
    assert (metal.known, metal.verdict) == (None, "flagged, as it must be")
    assert r"| Co \| foil | – | " in (mine / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", ["--shifts", "--config"])
def test_a_card_states_no_answers_for_shifted_energies(xa, folder, tmp_path, option):
    mine = Path(shutil.copytree(find("co-k"), tmp_path / "mine"))
    before = (mine / "card.yaml").read_bytes()
    (tmp_path / "shifted.yaml").write_text("alignment: {energy_shift_ev: 1.0}\n")
    shifted = [option] if option == "--shifts" else [option, tmp_path / "shifted.yaml"]
    done = xa("standards", folder / "standards.csv", "--model", mine, "--write", *shifted, code=2)
    assert "--write: a card states answers for energies as recorded" in done.stderr
    assert (mine / "card.yaml").read_bytes() == before


def test_a_file_of_several_spectra_needs_a_choice(folder, models, tmp_path):
    mu = [SPECTRA.cathode(E, x) for x in (1.0, 0.5)]
    np.savez(tmp_path / "two.npz", energy=E, mu=np.array(mu), id=["full", "half"])
    for scan, why in (("", "found 2 spectra (full, half); name one in a column scan"), ("none", "expected 'none'")):
        one = KnownCompound(tmp_path / "two.npz", "Co", "LiCoO2", "oxide", 3.0, scan=scan)
        (judged,) = judge(read_standards([one]), models, Config())
        assert why in judged.set_aside
    one = KnownCompound(tmp_path / "two.npz", "Co", "LiCoO2", "oxide", 3.0, scan="half")
    assert one.spectrum().id == "half"


@pytest.mark.parametrize(
    ("content", "args", "said"),
    [
        ("file,element,OS\na.xdi,Co,3\n", (), "no column compound; found file, element, OS"),
        ("", (), "no column file, element, compound, OS; found none"),
        (HEADER, (), "found no row with a file"),
        (HEADER + "no.xdi,Co,CoO,2\nnot.xdi,Co,CoO,2\n", (), "no.xdi, not.xdi: no such file in"),
        (HEADER + "half.xdi,Xx,CoO,2\n", (), "line 2, element: found 'Xx'"),
        (HEADER + "half.xdi,Co,CoO,II\n", (), "line 2, OS: found 'II', expected a number"),
        (HEADER + "half.xdi,Co,CoO,20\n", (), "line 2, OS: found 20, expected a mean oxidation state from -4 to 9 e"),
        (HEADER + "half.xdi,Co,CoO,2,,rust\n", (), "line 2, class: found 'rust', expected oxide, metal"),
        ("file,element,compound,OS\nhalf.xdi,Co,Co3O4,2,667\n", (), "line 2: more cells than columns"),
        ("file,element,compound,OS,OS\nhalf.xdi,Co,CoO,2,3\n", (), "several columns OS; expected one"),
        (
            HEADER + "zinc.dat,Zn,ZnO,2\n",
            (),
            f"no model for Zn; shipped are {', '.join(installed())}. Name one with --model",
        ),
        (HEADER + "half.xdi,Co,CoO,2\n", ("--shifts",), "--shifts: no effect without a column shift_ev in"),
        (HEADER + "half.xdi,Co,CoO,2\n", ("--model", "co-k") * 2, "--model co-k, co-k: both are for Co"),
        (HEADER + "half.xdi,Co,CoO,2\n", ("--model", "zn-k"), "no model 'zn-k'"),
        (HEADER + "half.xdi,Co,CoO,2\n", ("--out", "table.csv"), "cannot be used as the output folder"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_message(xa, folder, tmp_path, monkeypatch, content, args, said):
    (tmp_path / "table.csv").write_text(content)
    monkeypatch.chdir(tmp_path)
    done = xa("standards", tmp_path / "table.csv", "--spectra", folder, *args, code=2)
    assert said in done.stderr
    assert xa("standards", tmp_path / "none.csv", code=2).stderr.endswith("columns file, element, compound, OS\n")


def test_a_compound_without_its_element_is_named(tmp_path):
    (tmp_path / "a.xdi").touch()
    (tmp_path / "table.csv").write_text(HEADER + "a.xdi,Fe,TiO2 anatase,4\na.xdi,Fe,magnetite,2.67\n")
    with capture_logs() as lines:
        read_known(tmp_path / "table.csv")
    assert [(line["event"], line["compound"]) for line in lines] == [
        ("the compound lacks the element", "TiO2 anatase")
    ]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_numbers_may_have_decimal_commas_where_no_comma_separates(tmp_path, separator):
    (tmp_path / "a.xdi").touch()
    rows = ["file element compound OS CN", "a.xdi Co Co3O4 2,667 5.333"]
    (tmp_path / "table.csv").write_text("\n".join(rows).replace(" ", separator))
    (one,) = read_known(tmp_path / "table.csv")
    assert (one.os, one.cn) == (2.667, 5.333)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_a_table_of_a_windows_program_is_read(tmp_path, encoding):
    (tmp_path / "a.xdi").touch()
    text = "file\telement\tcompound\tOS\tsource\r\na.xdi\tCo\tCo3O4\t2,667\tPräparat bei 20 °C\r\n"
    (tmp_path / "table.txt").write_bytes(text.encode(encoding))
    (one,) = read_known(tmp_path / "table.txt")
    assert (one.path.name, one.os, one.columns["source"]) == ("a.xdi", 2.667, "Präparat bei 20 °C")


def test_a_workbook_is_no_table(tmp_path):
    (tmp_path / "table.xlsx").write_bytes(b"PK\x03\x04" + bytes(range(256)))
    with pytest.raises(InputError, match=r"table\.xlsx: found a binary file, expected a CSV with columns file"):
        read_known(tmp_path / "table.xlsx")


@pytest.mark.parametrize(
    ("compound", "os", "kind"),
    [
        ("Fe2(SO4)3", "3", "oxide"), ("FeOOH akaganeite", "3", "oxide"), ("diopside", "2", "oxide"),
        ("Fe₂O₃", "3", "oxide"), ("FeS2", "2", "sulphide"), ("Ni2P, nano", "", "phosphide"), ("FeF3", "3", "other"),
        ("Ni", "", "metal"), ("Mn metal", "0", "metal"), ("reference foil", "", "metal"), ("Fe3C", "0", "metal"),
        ("pyrite", "", "other"),
    ],
)  # fmt: skip
def test_the_class_comes_from_the_compound(tmp_path, compound, os, kind):
    (tmp_path / "a.xdi").touch()
    table = tmp_path / "table.csv"
    table.write_text(f"\ufefffile;element;compound;OS\na.xdi;Fe;{compound};{os}\n", encoding="utf-8")
    (one,) = read_known(table)
    assert one.kind == kind
    assert one.must_be_flagged == (kind in ("metal", "sulphide", "phosphide"))
    table.write_text(f'file,element,compound,OS,class\na.xdi,Fe,"{compound}",{os},Sulfide\n', encoding="utf-8")
    assert read_known(table)[0].kind == "sulphide"


def test_two_models_of_one_element_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="both are for Co"):
        models_for(read_known(folder / "standards.csv"), ("co-k", str(find("co-k"))), Config())


def test_columns_of_an_earlier_answer_are_dropped(folder, models, tmp_path):
    """A table that was written by an earlier judgement is judged again."""
    (tmp_path / "again.csv").write_text(
        "file,element,compound,OS,beamline,OS_mean,verdict\nwords.dat,Co,CoO,2,B18,2.9,hit\n"
    )
    (judged,) = judge(read_standards(read_known(tmp_path / "again.csv", folder)), models, Config())
    row = judged.row()
    assert row["beamline"] == "B18"
    assert row["verdict"].startswith("set aside")
    assert "OS_mean" not in row
