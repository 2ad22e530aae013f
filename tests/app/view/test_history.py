"""What a dashboard reads of a folder while a session writes into it."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paged_documents import paged
from shown_session import ENERGY, GRID, PROBABILITIES, Written, written

from xas_agent.app.view.history import History
from xas_agent.app.view.rows import Rows


def names(changes: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [name for name, _ in changes]


def read(folder: Path) -> History:
    history = History(folder)
    while history.update():
        pass
    return history


def test_frames_are_the_rows_of_the_table(tmp_path: Path):
    history = read(written(tmp_path / "s", frames=4))
    with (tmp_path / "s" / "descriptors.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    rows = history.rows(history.select())
    assert len(rows) == len(expected) == 4
    for number, (row, line) in enumerate(zip(rows, expected, strict=True), 1):
        assert (row["n"], row["uid"], row["series"]) == (number, f"f{number}", "cell")
        for name, text in line.items():
            assert text == str(row[name]) or (text == "nan" and math.isnan(row[name])), name
        assert row["probabilities"] == {"OS": PROBABILITIES}
    assert history.descriptors["OS"] == {"name": "OS", "unit": "e", "classes": ["2", "3", "4"]}


def test_it_follows_what_is_written_and_waits_for_the_rest_of_a_torn_line(tmp_path: Path):
    session = Written(tmp_path / "s")
    history = History(tmp_path / "s")
    assert names(history.update()) == []
    session.frame()
    assert names(history.update()) == ["frame"]
    assert history.update() == []
    documents = tmp_path / "s" / "documents.jsonl"
    session.frame()
    whole = documents.read_bytes()
    with documents.open("r+b") as file:
        file.truncate(len(whole) - 100)
    history.update()
    assert not history.behind, "a torn line is nothing to be read"
    with documents.open("ab") as file:
        file.write(whole[-100:])
    history.update()
    assert history.frames == 2
    assert history.spectrum("f2")["measured"] is not None
    assert history.malformed == 0
    session.end()


def test_a_folder_that_was_replaced_begins_anew(tmp_path: Path):
    history = read(written(tmp_path / "s", frames=3))
    (tmp_path / "s" / "documents.jsonl").rename(tmp_path / "s" / "old")
    assert names(history.update()) == ["reset"]
    assert history.frames == 0
    written(tmp_path / "t", frames=2)
    (tmp_path / "t" / "documents.jsonl").rename(tmp_path / "s" / "documents.jsonl")
    assert names(history.update()).count("frame") == 2
    assert history.frames == 2


def test_documents_that_a_longer_file_overwrites_begin_anew(tmp_path: Path):
    documents = written(tmp_path / "s", frames=2) / "documents.jsonl"
    history = read(tmp_path / "s")
    longer = written(tmp_path / "t", frames=6) / "documents.jsonl"
    documents.write_bytes(longer.read_bytes())  # in place, as cp does
    assert names(history.update()) == ["reset"]
    assert names(history.update()).count("frame") == 6
    assert history.frames == 6


def test_a_session_that_goes_on_publishes_a_frame_once_more_without_a_second_row(tmp_path: Path):
    folder = written(tmp_path / "s", frames=3)
    documents = folder / "documents.jsonl"
    again = [line for line in documents.read_text().splitlines() if '"f2"' in line and "OS_mean" in line]
    with documents.open("a") as file:
        file.write("\n".join(again) + "\n")
    assert len(again) == 1
    assert read(folder).frames == 3


def test_lines_that_are_no_documents_are_passed_over(tmp_path: Path):
    folder = written(tmp_path / "s", frames=2)
    documents = folder / "documents.jsonl"
    documents.write_bytes(b'nonsense\n["event", {"descriptor": "x"}]\n[1]\n' + documents.read_bytes())
    history = read(folder)
    assert (history.frames, history.malformed) == (2, 2)


def test_spectra_are_thinned_evenly_with_the_first_and_the_newest(tmp_path: Path):
    history = read(written(tmp_path / "s", frames=21))
    found = history.spectra(5)
    assert found["grid_ev"] == GRID.tolist()
    assert [row["n"] for row in found["rows"]] == [1, 6, 11, 16, 21]
    assert found["rows"][1]["mu"] == (GRID * 6).tolist()
    assert [row["n"] for row in history.spectra(99, "cell")["rows"]] == [*range(1, 22)]
    assert history.spectra(5, "other")["rows"] == []


def test_a_spectrum_as_measured_has_its_lines_at_every_energy(tmp_path: Path):
    spectrum = read(written(tmp_path / "s")).spectrum("f3")
    measured = spectrum["measured"]
    np.testing.assert_array_equal(measured["energy_ev"], ENERGY)
    np.testing.assert_allclose(np.array(measured["pre_edge"]), np.array(measured["mu"]) - 0.5)
    np.testing.assert_allclose(np.array(measured["post_edge"]), np.array(measured["mu"]) + 0.5)
    assert (measured["e0_ev"], measured["edge_step"], measured["reference"]["e0_ev"]) == (7720.5, 0.9, 7709.25)
    assert spectrum["first"]["mu"] == GRID.tolist()
    assert spectrum["aligned"]["mu"] == (GRID * 3).tolist()


def test_spectra_of_a_session_that_does_not_publish_them_as_measured(tmp_path: Path):
    spectrum = read(written(tmp_path / "s", measured=False)).spectrum("f1")
    assert spectrum["measured"] is None
    assert spectrum["aligned"] is not None


def test_decisions_keep_how_they_came_to_their_status(tmp_path: Path):
    [decision] = read(written(tmp_path / "s")).decisions.values()
    assert [(step["status"], step["time"]) for step in decision["history"]] == [
        ("proposed", 11.0),
        ("sent", 12.0),
        ("acknowledged", 13.0),
    ]
    assert decision["history"][-1]["by"] == "ada"
    assert decision["evidence"] == [{"uid": "f2", "n": 2, "value": 3.52}]
    assert (decision["status"], decision["series"]) == ("acknowledged", "cell")


def test_what_was_set_aside(tmp_path: Path):
    quality = read(written(tmp_path / "s")).quality()
    assert quality["set_aside"] == {"too few points": 1}
    assert quality["latest"][0]["detail"] == "found 3 points"


def test_the_series_of_a_session(tmp_path: Path):
    [sample] = read(written(tmp_path / "s")).samples()
    assert sample == {"series": "cell", "name": "LiCoO2", "element": "Co", "frames": 5, "first": 1.0, "last": 5.0}


def test_a_column_that_begins_later_is_empty_before(tmp_path: Path):
    session = Written(tmp_path / "s")
    session.frame()
    session.frame(voltage=3.9)
    history = read(session.end())
    first, second = history.rows(history.select())
    assert math.isnan(first["voltage"])
    assert second["voltage"] == 3.9
    assert history.columns()[-4:] == ["voltage", "n", "series", "uid"]


def test_rows_keep_numbers_integers_and_texts():
    rows = Rows()
    rows.append({"a": 1.5, "n": 3, "t": "x"})
    rows.append({"a": None, "n": 4, "t": "x", "new": "y"})
    assert rows.row(0, ["a", "n", "t", "new", "no"]) == {"a": 1.5, "n": 3, "t": "x", "new": ""}
    assert math.isnan(rows.row(1, ["a"])["a"])
    assert json.dumps(rows.row(1, ["n", "new"])) == '{"n": 4, "new": "y"}'


def test_a_column_of_integers_takes_what_is_none():
    rows = Rows()
    for value in (25, 25.7, None, 2**70):
        rows.append({"temperature": value})
    rows.append({})
    kept = list(rows.column("temperature"))
    assert kept[:2] == [25, 25.7]
    assert kept[3] == 2**70
    assert math.isnan(kept[2])
    assert math.isnan(kept[4])


def test_a_row_that_does_not_fit_leaves_the_others_in_their_place():
    rows = Rows()
    rows.append({"a": 1.0, "b": 1.0})
    with pytest.raises(ValueError, match="moving"):
        rows.append({"a": 2.0, "b": "moving", "new": 2.0})
    rows.append({"a": 3.0, "b": 3.0})
    assert [rows.row(i, ["a", "b", "new"]) for i in range(rows.count)] == [{"a": 1.0, "b": 1.0}, {"a": 3.0, "b": 3.0}]


def test_damaged_bytes_hide_no_frame_from_readers(tmp_path: Path):
    session = Written(tmp_path / "s")
    session.frame()
    history = read(tmp_path / "s")
    documents = tmp_path / "s" / "documents.jsonl"
    spectrum = next(line for line in documents.read_bytes().splitlines() if b'"spectrum"' in line and b'"f1"' in line)
    session.frame()
    with documents.open("ab") as file:
        file.write(spectrum.replace(b'"f1"', b'"\xff1"') + b"\n")
    assert "frame" in names(history.update())
    assert history.malformed == 1
    session.end()


def test_pages_in_the_file_are_read_like_their_events(tmp_path: Path):
    events = tmp_path / "events"
    expected = read(written(events, frames=4))
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "documents.jsonl").write_text(paged((events / "documents.jsonl").read_text()))
    found = read(pages)
    numbers = expected.select()
    assert found.select() == numbers
    assert json.dumps(found.rows(numbers)) == json.dumps(expected.rows(numbers))  # some are NaN
    assert found.spectra(3) == expected.spectra(3)
    for uid in ("f1", "f3", "f4"):
        assert found.spectrum(uid) == expected.spectrum(uid)
        assert found.spectrum(uid)["measured"] is not None
    assert found.malformed == 0
