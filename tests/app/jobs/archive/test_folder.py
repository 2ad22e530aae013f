"""Tests of the folder of a backfill: what a kill leaves is put right, and nothing else is touched."""

import json
from pathlib import Path

import pytest

from xas_agent.agent.types import InputError
from xas_agent.app.jobs.archive.folder import MANIFEST, ArchiveFolder
from xas_agent.app.jobs.archive.work import ABOUT, Part, Piece, Written

IDENTITY = {"config": "a", "part rows": 10}


def piece(k: int, state: str = "1 1") -> Piece:
    return Piece("file", f"/data/{k}", state)


def keep(folder: ArchiveFolder, k: int) -> None:
    name = f".part-{k}.tmp"
    (folder.folder / name).write_text(str(k))
    folder.keep(Part((piece(k),)), Written(name, 5, {"no model": 2}))


def opened(path: Path, write: bool = True) -> ArchiveFolder:
    return ArchiveFolder(path, IDENTITY, write=write)


def test_it_goes_on_after_the_parts_that_are_whole(tmp_path):
    folder = opened(tmp_path / "out")
    keep(folder, 0)
    keep(folder, 1)
    folder.close()
    folder = opened(tmp_path / "out")
    assert (folder.rows, dict(folder.set_aside)) == (10, {"no model": 4})
    assert [folder.state_of(p) for p in (piece(0), piece(1, "2 2"), piece(2))] == [True, False, None]
    keep(folder, 2)
    folder.close()
    assert [(p.name, p.read_text()) for p in sorted((tmp_path / "out").glob("part-*"))] == [
        ("part-000000.parquet", "0"), ("part-000001.parquet", "1"), ("part-000002.parquet", "2"),
    ]  # fmt: skip


def test_a_part_that_the_manifest_lacks_is_removed(tmp_path):
    folder = opened(tmp_path)
    keep(folder, 0)
    keep(folder, 1)
    folder.close()
    manifest = tmp_path / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-10])  # killed while the second line was written
    (tmp_path / ".part-x.tmp").touch()  # a part that a worker had begun
    folder = opened(tmp_path)
    assert folder.rows == 5
    assert folder.state_of(piece(1)) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", ABOUT, MANIFEST, "part-000000.parquet"]
    keep(folder, 1)
    folder.close()
    assert [json.loads(line)["part"] for line in manifest.read_text().splitlines()] == [
        "part-000000.parquet", "part-000001.parquet",
    ]  # fmt: skip


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match=r"found mine.txt, expected a new or empty folder"):
        opened(tmp_path)
    opened(tmp_path / "out").close()
    with pytest.raises(InputError, match="found a backfill with other part rows, expected the same command"):
        ArchiveFolder(tmp_path / "out", {**IDENTITY, "part rows": 20})
    folder = opened(tmp_path / "out")
    with pytest.raises(InputError, match="in use"):
        opened(tmp_path / "out")
    folder.close()


def test_a_part_that_somebody_removed_is_named(tmp_path):
    folder = opened(tmp_path)
    keep(folder, 0)
    folder.close()
    (tmp_path / "part-000000.parquet").unlink()
    with pytest.raises(InputError, match=r"found no part-000000.parquet"):
        opened(tmp_path)


def test_reading_makes_nothing(tmp_path):
    folder = opened(tmp_path / "out", write=False)
    assert folder.rows == 0
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="found a file, expected a folder; name another --out"):
        opened(tmp_path / "out", write=False)


def test_a_damaged_folder_is_refused_with_its_parts(tmp_path):
    folder = opened(tmp_path)
    keep(folder, 0)
    keep(folder, 1)
    folder.close()
    manifest, about = tmp_path / MANIFEST, tmp_path / ABOUT
    whole = manifest.read_bytes()
    manifest.write_bytes(b"x" + whole)
    with pytest.raises(InputError, match="line 1 is damaged"):
        opened(tmp_path)
    assert len([*tmp_path.glob("part-*")]) == 2
    manifest.write_bytes(whole)
    about.write_text("[1]")
    with pytest.raises(InputError, match="expected that of a backfill"):
        opened(tmp_path)
