"""What the handlers read, and what they wait for."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from xas_agent.adapters.assets.files import (
    HANDLERS,
    QUIET_S,
    AssetRefused,
    AssetSettings,
    NotYet,
    Xspress3HDF5,
    rows_of,
)

h5py = pytest.importorskip("h5py", reason="the files are HDF5: pip install 'xas-agent[formats]'")


def aged(path: Path) -> Path:
    os.utime(path, (1e9, 1e9))
    return path


def test_xspress3_spectra_and_regions(tmp_path: Path) -> None:
    counts = np.arange(5 * 4 * 8).reshape(5, 4, 8)
    with h5py.File(tmp_path / "xs.h5", "w") as file:
        file["entry/data/data"] = counts
        file["entry/instrument/detector/NDAttributes/CHAN2ROI1"] = np.arange(5)
    read = Xspress3HDF5(aged(tmp_path / "xs.h5"))
    np.testing.assert_array_equal(read(frame=3, channel=2), counts[3, 1])
    np.testing.assert_array_equal(read(channel=4), counts[:, 3])
    np.testing.assert_array_equal(read(data_type="roi", channel=2, roi_num=1), np.arange(5))
    with pytest.raises(NotYet, match="5 rows, 6 are announced"):
        read(frame=5)
    with pytest.raises(NotYet, match="CHAN9ROI1"):
        read(data_type="roi", channel=9)


def test_electrometers_and_triggers(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    rows = np.array([[1, 2, 3, 4, 5, 6, 7, 8, 1_700_000_000, 125_000_000 // 8]] * 2, dtype="<i4")
    path.write_bytes(rows.tobytes())
    (found, _) = HANDLERS["APB"](aged(path))()
    assert found[0] == pytest.approx(1_700_000_000.125, abs=1e-3)
    np.testing.assert_array_equal(found[1:], np.arange(1, 9))
    path.write_bytes(rows.tobytes()[:-4])
    with pytest.raises(NotYet, match="expected complete rows of 40"):
        HANDLERS["APB"](aged(path))()
    path.write_bytes(np.array([[1, 1_700_000_000, 0]], dtype="<i4").tobytes())
    np.testing.assert_array_equal(HANDLERS["APB_TRIGGER"](aged(path))(), [[1_700_000_000, 1]])


def test_the_encoder_file(tmp_path: Path) -> None:
    read = HANDLERS["PIZZABOX_ENC_FILE_TXT_PD"]
    path = tmp_path / "en.txt"
    path.write_text("1 2 3 4 0\n1 3 4 5 0\n")
    np.testing.assert_array_equal(read(aged(path))(), [[1, 2, 3, 4, 0], [1, 3, 4, 5, 0]])
    path.write_text("1 2 3 4 0\n1 3 ")
    with pytest.raises(NotYet, match="last line"):
        read(aged(path))()
    path.write_text("one two\n")
    with pytest.raises(AssetRefused, match="not a table"):
        read(aged(path))()


def test_a_file_written_a_moment_ago_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "en.txt"
    path.write_text("1 2 3 4 0\n")
    now = time.time()
    os.utime(path, (now + 100, now + 100))  # a clock that is ahead must not stop it for ever
    assert HANDLERS["PIZZABOX_ENC_FILE_TXT_PD"](path)().shape == (1, 5)
    os.utime(path, (now, now))
    if time.time() - now < QUIET_S:
        with pytest.raises(NotYet, match="still being written"):
            HANDLERS["PIZZABOX_ENC_FILE_TXT_PD"](path)()


def test_hdf5_that_is_invalid_yet(tmp_path: Path) -> None:
    with pytest.raises(NotYet):
        rows_of(tmp_path / "none.h5", "a", 0, 1)
    (tmp_path / "empty.h5").touch()
    with pytest.raises(NotYet):
        rows_of(tmp_path / "empty.h5", "a", 0, 1)
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("a")
    with pytest.raises(NotYet, match="no dataset"):
        rows_of(tmp_path / "group.h5", "a", 0, 1)


def test_a_file_that_its_writer_holds_open(tmp_path: Path) -> None:
    """areaDetector and PandA write in SWMR mode: the rows are to be read while they are at it."""
    writer = textwrap.dedent("""
        import sys, h5py
        with h5py.File(sys.argv[1], "w", libver="latest") as file:
            data = file.create_dataset("d", (0,), "f8", maxshape=(None,), chunks=(4,))
            file.swmr_mode = True
            data.resize((3,))
            data[:] = [1.0, 2.0, 3.0]
            data.flush()
            print("ready", flush=True)
            sys.stdin.read()
    """)
    path = tmp_path / "swmr.h5"
    command = [sys.executable, "-c", writer, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        np.testing.assert_array_equal(rows_of(path, "d", 0, 3), [1.0, 2.0, 3.0])
        with pytest.raises(NotYet, match="3 rows, 4 are announced"):
            rows_of(path, "d", 3, 4)


def test_a_virtual_dataset_waits_for_the_files_that_it_is_made_of(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("part.h5", "d", (3,))
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_virtual_dataset("d", layout)
    with pytest.raises(NotYet, match=r"part\.h5, which does not exist"):
        rows_of(tmp_path / "whole.h5", "d", 0, 3)
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["d"] = [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(rows_of(tmp_path / "whole.h5", "d", 0, 3), [1.0, 2.0, 3.0])


@pytest.mark.parametrize("way", ["link", "virtual", "nested", "bytes"])
def test_no_way_within_hdf5_leads_outside_of_the_roots(tmp_path: Path, way: str) -> None:
    (tmp_path / "in").mkdir()
    for folder in (tmp_path, tmp_path / "in"):
        with h5py.File(folder / "part.h5", "w") as file:
            file["d"] = [1.0, 2.0, 3.0]
    (tmp_path / "bytes").write_bytes(np.arange(3.0).tobytes())
    within = AssetSettings(roots=(str(tmp_path / "in"),)).inside
    for outside, target in ((False, "part.h5"), (True, "../part.h5")):
        path = tmp_path / "in" / f"{outside}.h5"
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(target, "d", (3,))
        with h5py.File(path, "w") as file:
            if way == "link":
                file["d"] = h5py.ExternalLink(target, "d")
            elif way == "bytes":
                raw = tmp_path / "in" / target if outside else tmp_path / "in" / "bytes"
                raw.write_bytes(np.arange(3.0).tobytes())
                file.create_dataset("d", (3,), "f8", external=[(str(raw), 0, 24)])
            else:
                file.create_virtual_dataset("e" if way == "nested" else "d", layout)
                again = h5py.VirtualLayout((3,), "f8")
                again[:] = h5py.VirtualSource(".", "e", (3,))
                if way == "nested":
                    file.create_virtual_dataset("d", again)
        assert rows_of(path, "d", 0, 3).size == 3
        if not outside:
            assert rows_of(path, "d", 0, 3, within).size == 3
            continue
        with pytest.raises(AssetRefused, match=r"outside of assets\.roots"):
            rows_of(path, "d", 0, 3, within)
        with pytest.raises(AssetRefused, match=r"outside of assets\.roots"):
            HANDLERS["AD_HDF5"](path, dataset="d", inside=within)(point_number=0)


def test_each_file_of_a_dataset_is_checked_once(tmp_path: Path) -> None:
    checked: list[str] = []

    def inside(path: Path) -> Path:
        checked.append(path.name)
        return path.resolve()

    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["d"] = [1.0, 2.0, 3.0]
    layout = h5py.VirtualLayout((3,), "f8")
    for k in range(3):
        layout[k] = h5py.VirtualSource("part.h5", "d", (3,))[k]
    again = h5py.VirtualLayout((3,), "f8")
    again[:] = h5py.VirtualSource(".", "e", (3,))
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_virtual_dataset("e", layout)
        file.create_virtual_dataset("d", again)
    np.testing.assert_array_equal(rows_of(tmp_path / "part.h5", "d", 0, 3, inside), [1.0, 2.0, 3.0])
    assert checked == [], "the caller checks the file that it names"
    np.testing.assert_array_equal(rows_of(tmp_path / "whole.h5", "d", 0, 3, inside), [1.0, 2.0, 3.0])
    assert checked == ["part.h5"]


def test_a_pattern_of_source_files_is_refused_with_what_to_do(tmp_path: Path) -> None:
    rows, row = (h5py.h5s.create_simple((1, 3), most) for most in ((h5py.h5s.UNLIMITED, 3), (1, 3)))
    rows.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (1, 1), (1, 3))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_virtual(rows, b"part_%b.h5", b"d", row)
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        h5py.h5d.create(file.id, b"d", h5py.h5t.NATIVE_DOUBLE, rows, properties)
    with pytest.raises(AssetRefused, match="name each source file in the virtual dataset"):
        rows_of(tmp_path / "whole.h5", "d", 0, 3)


# -------------------------------------------------------------- where files are


def test_paths_are_mapped_by_their_longest_beginning(tmp_path: Path) -> None:
    where = AssetSettings(roots=("/",), path_map={"/nsls2": "/mnt", "/nsls2/data/bmm/": str(tmp_path)})
    assert where.locate("/nsls2/data/bmm/x/a.h5") == tmp_path / "x/a.h5"
    assert where.locate("/nsls2/data/iss/a.h5") == Path("/mnt/data/iss/a.h5")
    assert where.locate("/nsls2/data/bmmx/a.h5") == Path("/mnt/data/bmmx/a.h5")
    assert where.locate("file://localhost/nsls2/data/bmm/a%20b.h5") == tmp_path / "a b.h5"
    assert where.locate("/elsewhere/a.h5") == Path("/elsewhere/a.h5")
    assert where.locate(f"file:{tmp_path}/a.h5") == tmp_path / "a.h5"
    assert AssetSettings(roots=("/",), path_map={"/": "/mnt"}).locate("/data/a.h5") == Path("/mnt/data/a.h5")


def test_only_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(AssetRefused, match="not a regular file"):
            AssetSettings(roots=("/",)).locate(str(path))


def test_outside_of_the_roots_nothing_is_read(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    secret = tmp_path / "secret.h5"
    secret.touch()
    (tmp_path / "inside" / "link.h5").symlink_to(secret)
    where = AssetSettings(roots=(str(tmp_path / "inside"),))
    assert where.locate(str(tmp_path / "inside" / "a.h5")).name == "a.h5"
    for path in (secret, tmp_path / "inside" / ".." / "secret.h5", tmp_path / "inside" / "link.h5"):
        with pytest.raises(AssetRefused, match=r"outside of assets\.roots"):
            where.locate(str(path))


def test_the_roots_are_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    where, resolved, resolve = AssetSettings(roots=(str(tmp_path / "link"),)), [], Path.resolve
    monkeypatch.setattr(Path, "resolve", lambda path: resolved.append(path.name) or resolve(path))
    for name in "abc":
        assert where.locate(str(tmp_path / "link" / name)) == tmp_path / "data" / name
    assert sorted(resolved) == ["a", "b", "c", "link"]
