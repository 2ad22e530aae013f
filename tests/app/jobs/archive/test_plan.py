"""Tests of the division of an archive into pieces and parts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import write_table

from xas_agent.adapters.formats import SpectrumFileError
from xas_agent.app.jobs.archive.plan import parts_of, plan
from xas_agent.app.jobs.archive.sources import Sources
from xas_agent.app.jobs.archive.work import ABOUT, LEAD_ROWS, Piece


def names(sources: Sources) -> list[str]:
    return [Path(piece.source).name for piece in sources]


def file(folder: Path, name: str, size: int = 10) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def test_folders_within_folders_in_a_steady_order(tmp_path):
    for name in ("b.xdi", "a.xdi", "day2/c.xdi", "day1/d.xdi", ".hidden", "run.jsonl", ".git/e.xdi"):
        file(tmp_path, name)
    file(tmp_path, "results/part-000000.parquet")
    file(tmp_path, f"results/{ABOUT}")
    (tmp_path / "day1" / "loop").symlink_to(tmp_path)
    assert names(Sources([str(tmp_path)])) == ["a.xdi", "b.xdi", "d.xdi", "c.xdi"]


def test_a_link_to_itself_is_a_file_that_cannot_be_read(tmp_path):
    file(tmp_path, "a.xdi")
    (tmp_path / "self").symlink_to("self")
    assert names(Sources([str(tmp_path)])) == ["a.xdi", "self"]


def test_a_link_to_a_file_of_the_same_folder_is_that_file(tmp_path):
    (tmp_path / "raw" / ".annex").mkdir(parents=True)
    other = tmp_path / "other.dat"
    for path in (tmp_path / "raw" / "a.dat", tmp_path / "raw" / ".annex" / "b.dat", other):
        path.write_text("1 2")
    (tmp_path / "raw" / "again.dat").symlink_to("a.dat")
    (tmp_path / "raw" / "annexed.dat").symlink_to(".annex/b.dat")
    (tmp_path / "raw" / "outside.dat").symlink_to(other)
    assert names(Sources([str(tmp_path / "raw")])) == ["a.dat", "annexed.dat", "outside.dat"]
    assert names(Sources([str(tmp_path / "raw" / "again.dat")])) == ["again.dat"]


def test_a_link_that_alone_says_what_its_file_is_is_read(tmp_path):
    write_table(tmp_path / "a.parquet", 0, 25).rename(file(tmp_path, "store/0f3a"))
    (tmp_path / "a.parquet").symlink_to("store/0f3a")
    (piece, *_) = Sources([str(tmp_path)])
    assert (piece.kind, Path(piece.source).name, piece.stop) == ("rows", "a.parquet", 25)


def test_overlapping_sources_give_a_file_once(tmp_path):
    first = file(tmp_path, "day1/a.xdi")
    file(tmp_path, "day1/b.xdi")
    given = [str(tmp_path / "day1" / "*.xdi"), str(first), str(tmp_path), str(tmp_path)]
    assert names(Sources(given)) == ["a.xdi", "b.xdi"]
    assert names(Sources(given[::-1])) == ["a.xdi", "b.xdi"]


def test_nothing_to_read_is_an_error(tmp_path):
    for source in (tmp_path, tmp_path / "none.xdi", tmp_path / "*.xdi"):
        with pytest.raises(SpectrumFileError, match="expected files of spectra"):
            list(Sources([str(source)]))
    with pytest.raises(SpectrumFileError, match="found an empty source"):  # an unset variable of a shell
        list(Sources([""]))


def test_a_table_is_read_in_ranges(tmp_path):
    path = write_table(tmp_path / "a.parquet", 0, 25)
    pieces = list(Sources([str(path)], part_rows=10))
    assert [(p.kind, p.first, p.stop) for p in pieces] == [("rows", 0, 10), ("rows", 10, 20), ("rows", 20, 25)]


def test_a_table_with_other_columns_is_one_piece(tmp_path):
    pq.write_table(pa.table({"energy": [1.0] * 25, "mu": [1.0] * 25}), tmp_path / "flat.parquet")
    path = write_table(tmp_path / "a.parquet", 0, 25)
    assert [p.kind for p in Sources([str(tmp_path / "flat.parquet")], part_rows=10)] == ["file"]
    assert [p.kind for p in Sources([str(path)], 10, columns={"energy": "mono"})] == ["file"]


def test_parts_are_bounded_and_go_on_where_they_were():
    pieces = [Piece("file", f"/{k}", weight=1 + k % 3) for k in range(50)] + [Piece("file", "/big", weight=99)]
    parts = list(parts_of(pieces, lambda piece: False, 10))
    assert [p for part in parts for p in part.pieces] == pieces
    assert all(sum(p.weight for p in part.pieces) <= 10 for part in parts[:-1])
    assert parts[-1].pieces == (pieces[-1],)
    for done in range(len(parts)):
        had = {p for part in parts[:done] for p in part.pieces}
        assert list(parts_of(pieces, had.__contains__, 10)) == parts[done:]
        one = set(parts[done].pieces)
        assert list(parts_of(pieces, one.__contains__, 10)) == [p for p in parts if p != parts[done]]


def test_the_lead_is_what_comes_before():
    rows = [Piece("rows", "/a", first=k, stop=k + 1000, weight=1000) for k in range(0, 3000, 1000)]
    parts = list(parts_of(rows, lambda piece: False, 1000))
    assert [[(p.first, p.stop) for p in part.lead] for part in parts] == [
        [], [(1000 - LEAD_ROWS, 1000)], [(2000 - LEAD_ROWS, 2000)],
    ]  # fmt: skip
    files = [Piece("file", f"/{k}") for k in range(300)]
    assert [p.source for p in list(parts_of(files, lambda piece: False, 200))[1].lead] == [
        f"/{k}" for k in range(200 - LEAD_ROWS, 200)
    ]


def test_the_plan_counts(tmp_path):
    write_table(tmp_path / "a.parquet", 0, 25)
    file(tmp_path, "b.xdi")
    sources = Sources([str(tmp_path)], part_rows=10)
    counts = plan(sources, lambda piece: False if piece.kind == "file" else None, 10)
    assert (counts.tables, counts.spectra, counts.files, counts.parts) == (1, 25, 1, 3)
    assert (counts.done, counts.changed) == (1, 1)
