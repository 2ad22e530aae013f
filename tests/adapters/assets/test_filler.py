"""Files that documents point to: late, lacking, half written, elsewhere, not to be read."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

h5py = pytest.importorskip("h5py", reason="the files are HDF5: pip install 'xas-agent[formats]'")
pytest.importorskip("bluesky.consolidators", reason="StreamDatums are read through bluesky's consolidators")

import shapes  # noqa: E402
from logs import capture_logs  # noqa: E402
from shapes import AXIS, Recording  # noqa: E402
from streams import Staged  # noqa: E402

from xas_agent.adapters.assets.files import AssetSettings  # noqa: E402
from xas_agent.adapters.assets.filler import AssetFiller  # noqa: E402
from xas_agent.adapters.assets.streams import StreamRows  # noqa: E402
from xas_agent.agent.types.frame import Document  # noqa: E402
from xas_agent.agent.types.run import RunDocument, RunInfo  # noqa: E402

DIAMOND: dict[str, Any] = {
    "preset": "diamond",
    "fields": {"element": "Co", "edge": "K", "relation": {"kind": "bragg", "d_spacing_ang": 3.1356}},
}
ARRAY = {"source": "SIM", "dtype": "array", "shape": [AXIS.size], "dtype_numpy": "<f8"}


def spectra(folder: Path, n: int = 3, spec: str = "AD_HDF5") -> Recording:
    """An Event per spectrum, whose I0 and It are frames of an areaDetector file each."""
    recording = Recording()
    run = shapes._Run(recording, element="Co", edge="K", plan_name="dispersive")
    outside = {**ARRAY, "external": "FILESTORE:"}
    stream = run.stream("primary", energy=ARRAY, I0=outside, It=outside, image={**outside, "shape": [9, 9]})
    datums = {}
    for name in ("I0", "It"):
        columns = [shapes.currents(AXIS, 0.3 * k)[name] for k in range(n)]
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["entry/data/data"] = np.array(columns)
        datums[name] = run.resource(spec, folder / f"{name}.h5", frame_per_point=1)
    picture = run.resource("AD_TIFF", folder / "never.tif")
    for k in range(n):
        data = {name: datum(point_number=k) for name, datum in datums.items()}
        run.event(stream, {"energy": AXIS, "image": picture(point_number=k), **data})
        recording.sweeps.append(shapes.sweep(AXIS, x=0.3 * k, foil=False))
    run.stop()
    return recording


def check(frames: list[Any], recording: Recording) -> None:
    assert len(frames) == len(recording.sweeps)
    for frame, true in zip(frames, recording.sweeps, strict=True):
        np.testing.assert_allclose(frame.energy, true.energy, rtol=0, atol=1e-5)
        np.testing.assert_allclose(frame.mu, true.mu, rtol=1e-6)


def hidden(path: Path) -> Path:
    """Move a file away, as if it had not been written yet."""
    return path.rename(path.with_suffix(".hidden"))


# ------------------------------------------------------------ Resource, Datum


def test_spectra_are_filled_in_and_pictures_are_left_alone(bench: Any, tmp_path: Path) -> None:
    recording = spectra(tmp_path)
    done = bench().feed(recording.documents)
    assert not done.waiting
    assert not done.asides
    check(done.frames, recording)


def test_a_file_that_lags_holds_up_its_own_run_alone(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    recording, other = spectra(tmp_path), spectra(tmp_path / "other")
    away = hidden(tmp_path / "It.h5")
    done = bench().feed(recording.documents).feed(other.documents)
    check(done.frames, other)
    assert done.waiting
    done.wait(0.2)
    assert len(done.frames) == 3
    away.rename(tmp_path / "It.h5")
    done.wait(1.0)
    assert not done.waiting
    assert not done.asides
    check(done.frames[3:], recording)


def test_what_never_comes_is_a_frame_set_aside(bench: Any, tmp_path: Path) -> None:
    recording = spectra(tmp_path)
    (tmp_path / "It.h5").unlink()
    done = bench().feed(recording.documents).wait(5.0)
    assert not done.waiting
    assert not done.frames
    assert done.reasons == {"file not readable": 3}
    assert [a.seq_num for a in done.asides] == [1, 2, 3]
    assert "It.h5" in done.asides[0].detail
    assert done.asides[0].detail.endswith("waited 0.5 s")


def test_a_row_that_is_not_there_yet(bench: Any, tmp_path: Path) -> None:
    recording = spectra(tmp_path)
    with h5py.File(tmp_path / "It.h5", "r+") as file:
        whole = file["entry/data/data"][()]
        del file["entry/data/data"]
        file.create_dataset("entry/data/data", data=whole[:1], maxshape=(None, AXIS.size))
    done = bench().feed(recording.documents)
    assert len(done.frames) == 1
    with h5py.File(tmp_path / "It.h5", "r+") as file:
        file["entry/data/data"].resize(3, axis=0)
        file["entry/data/data"][:] = whole
    done.wait(1.0)
    assert not done.asides
    check(done.frames, recording)


@pytest.mark.parametrize("last", ["resource", "datum"])
def test_resources_and_datums_may_come_after_the_events(bench: Any, tmp_path: Path, last: str) -> None:
    recording = spectra(tmp_path)
    early = [d for d in recording.documents if d[0] != last]
    done = bench().feed(early)
    assert not done.frames
    done.feed([d for d in recording.documents if d[0] == last]).wait(1.0)
    assert not done.asides
    check(done.frames, recording)


def test_pages_of_events_and_datums(bench: Any, tmp_path: Path) -> None:
    import event_model

    recording = spectra(tmp_path)
    by_name: dict[str, list[Any]] = {}
    for name, doc in recording.documents:
        by_name.setdefault(name, []).append(doc)
    datums = by_name.pop("datum")
    pages: list[Document] = [
        ("datum_page", dict(event_model.pack_datum_page(*(d for d in datums if d["resource"] == uid))))
        for uid in {d["resource"] for d in datums}
    ]
    pages.append(("event_page", dict(event_model.pack_event_page(*by_name.pop("event")))))
    head = [(name, doc) for name in ("start", "descriptor", "resource") for doc in by_name[name]]
    done = bench().feed([*head, *pages, ("stop", by_name["stop"][0])])
    assert not done.asides
    check(done.frames, recording)


def test_a_spec_that_nobody_reads(bench: Any, tmp_path: Path) -> None:
    done = bench().feed(spectra(tmp_path, spec="EIGER2_STREAM").documents)
    assert not done.waiting
    assert done.reasons == {"file not readable": 3}
    assert "EIGER2_STREAM" in done.asides[0].detail


def test_arrays_that_are_already_filled_in(bench: Any, tmp_path: Path) -> None:
    recording = spectra(tmp_path)
    for k, doc in enumerate(doc for name, doc in recording.documents if name == "event"):
        c = shapes.currents(AXIS, 0.3 * k)
        doc["data"] |= {"I0": c["I0"], "It": c["It"]}
        doc["filled"] = {"I0": "datum", "It": "datum"}
    for path in tmp_path.glob("*.h5"):
        path.unlink()
    done = bench().feed([d for d in recording.documents if d[0] not in ("resource", "datum")])
    assert not done.waiting
    check(done.frames, recording)


def test_without_h5py_it_is_told_what_to_install(bench: Any, tmp_path: Path, monkeypatch: Any) -> None:
    recording = spectra(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    done = bench().feed(recording.documents)
    assert done.reasons == {"file not readable": 3}
    assert done.asides[0].detail == "reading HDF5 needs h5py: pip install 'xas-agent[formats]'"


# ------------------------------------------------------- StreamResource, StreamDatum


def test_frames_come_as_the_file_grows(bench: Any, tmp_path: Path) -> None:
    recording = shapes.diamond(tmp_path, sweeps=4)
    with h5py.File(tmp_path / "panda.h5", "r+") as file:
        whole = {name: file[name][()] for name in file}
        for name, column in whole.items():
            del file[name]
            file.create_dataset(name, data=column[:1], maxshape=(None,), chunks=(16,))
    done = bench(DIAMOND, wait_s=10.0).feed(recording.documents)
    assert not done.frames
    for rows in (AXIS.size + 20, 2 * AXIS.size, 3 * AXIS.size + 20):
        with h5py.File(tmp_path / "panda.h5", "r+") as file:
            for name, column in whole.items():
                file[name].resize(rows, axis=0)
                file[name][:] = column[:rows]
        done.wait(1.0)
        assert done.waiting
    assert len(done.frames) >= 1
    with h5py.File(tmp_path / "panda.h5", "r+") as file:
        for name, column in whole.items():
            file[name].resize(column.size, axis=0)
            file[name][:] = column
    done.wait(2.0)
    assert not done.waiting
    assert not done.asides
    check(done.frames, recording)


def test_the_end_of_a_file_that_never_comes_costs_its_sweep(bench: Any, tmp_path: Path) -> None:
    recording = shapes.diamond(tmp_path, sweeps=3, flush=50)
    with h5py.File(tmp_path / "panda.h5", "r+") as file:
        column = file["it"][()]
        del file["it"]
        file["it"] = column[: 2 * AXIS.size + 30]
    done = bench(DIAMOND).feed(recording.documents).wait(5.0)
    assert not done.waiting
    check(done.frames, Recording(sweeps=recording.sweeps[:2]))
    assert done.reasons == {"file not readable": 1}
    assert done.asides[0].seq_num == 3
    assert "rows" in done.asides[0].detail


def test_rows_that_are_never_announced_are_points_lost(bench: Any, tmp_path: Path) -> None:
    recording = shapes.diamond(tmp_path, sweeps=3, flush=AXIS.size)
    last = [d for d in recording.documents if d[0] == "stream_datum"][-3:]
    done = bench(DIAMOND).feed(d for d in recording.documents if d not in last).wait(5.0)
    assert not done.waiting
    done.end()
    check(done.frames, Recording(sweeps=recording.sweeps[:1]))
    assert done.reasons == {"points lost": 1}, "what is lost after a sweep may be its own end"


@pytest.mark.parametrize("lost", ["it", "all"])
def test_a_lost_announcement_does_not_hold_up_the_spectra_after_it(bench: Any, tmp_path: Path, lost: str) -> None:
    recording = Recording()
    run = shapes._Run(recording, element="Co", edge="K")
    outside = {**ARRAY, "external": "STREAM:"}
    stream = run.stream("primary", energy=ARRAY | {"external": "STREAM:"}, i0=outside, it=outside)
    currents = [shapes.currents(AXIS, 0.3 * k) for k in range(3)]
    with h5py.File(tmp_path / "fly.h5", "w") as file:
        file["energy"] = np.tile(AXIS, 3)
        for name, column in (("i0", "I0"), ("it", "It")):
            file[name] = np.concatenate([c[column] for c in currents])
    announce = {name: run.hdf5(tmp_path / "fly.h5", name, name, stream) for name in ("energy", "i0", "it")}
    for k in range(3):
        for name, rows in announce.items():
            if k != 1 or (lost == "it" and name != "it"):
                rows(k, k + 1)
    done = bench().feed(recording.documents).wait(5.0)  # the run goes on: no stop
    recording.sweeps += [shapes.sweep(AXIS, x=0.3 * k, foil=False) for k in (0, 2)]
    check(done.frames, recording)
    assert done.reasons == ({"file not readable": 1} if lost == "it" else {})
    run.stop()
    done.feed(recording.documents[-1:]).wait(5.0).end()
    assert len(done.frames) == 2
    assert sum(done.reasons.values()) == 1


@pytest.mark.parametrize("announced", ["three", {"primary": "3"}, None])
def test_a_stop_that_announces_no_numbers_ends_its_run(bench: Any, tmp_path: Path, announced: Any) -> None:
    recording = shapes.diamond(tmp_path, sweeps=2)
    recording.documents[-1][1]["num_events"] = announced
    away = hidden(tmp_path / "panda.h5")
    done = bench(DIAMOND).feed(recording.documents).wait(0.1)
    away.rename(tmp_path / "panda.h5")
    done.wait(5.0)
    assert not done.waiting
    check(done.frames, recording)


def test_a_file_with_other_rows_than_announced(bench: Any, tmp_path: Path) -> None:
    recording = shapes.diamond(tmp_path, sweeps=1)
    with h5py.File(tmp_path / "panda.h5", "r+") as file:
        column = file["it"][()]
        del file["it"]
        file["it"] = np.stack([column, column], axis=1)
    done = bench(DIAMOND).feed(recording.documents).wait(5.0).end()
    assert not done.frames
    assert done.reasons == {"file not readable": 1}
    assert "announced 1" in done.asides[0].detail


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"mimetype": "multipart/related;type=image/tiff"}, "only application/x-hdf5"),
        ({"uri": "s3://bucket/panda.h5"}, "only file: URIs are read"),
        ({"parameters": {"dataset": "/i0", "slice": ":,0"}}, "a slice of a dataset"),
    ],
)
def test_resources_that_are_not_read(bench: Any, tmp_path: Path, change: dict[str, Any], detail: str) -> None:
    recording = shapes.diamond(tmp_path, sweeps=1)
    docs = [(n, {**d, **change} if d.get("data_key") == "panda1-i0" else d) for n, d in recording.documents]
    done = bench(DIAMOND).feed(docs).wait(5.0).end()
    assert not done.frames
    assert done.reasons == {"file not readable": 1}
    assert detail in done.asides[0].detail


def test_a_resource_without_its_key_costs_no_other_run(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    recording, other = shapes.diamond(tmp_path, sweeps=1), spectra(tmp_path / "other")
    docs = [
        (n, {k: v for k, v in d.items() if k != "data_key"} if d.get("data_key") == "panda1-i0" else d)
        for n, d in recording.documents
    ]
    away = hidden(tmp_path / "other" / "It.h5")
    done = bench(DIAMOND).feed(docs[:-1]).feed(other.documents).wait(0.1)
    away.rename(away.with_suffix(".h5"))
    done.feed(docs[-1:]).wait(5.0).end()
    assert not done.waiting
    check(done.frames, other)
    assert done.reasons == {"file not readable": 1}


@pytest.mark.parametrize("place", [(AssetFiller, "_filled"), (StreamRows, "_complete"), (StreamRows, "finish")])
def test_what_fails_in_a_run_costs_no_other_one(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[type, str]
) -> None:
    (tmp_path / "other").mkdir()
    in_rows = place[0] is StreamRows
    recording, other = (shapes.diamond(tmp_path, sweeps=2), spectra(tmp_path / "other"))
    bad, sound = (recording, other) if in_rows else (other, recording)
    uid, real = bad.documents[0][1]["uid"], getattr(*place)

    def fails(self: Any, *args: Any, **options: Any) -> Any:
        if (self._run if in_rows else args[0].run).uid == uid:
            raise RuntimeError("broken")
        return real(self, *args, **options)

    monkeypatch.setattr(*place, fails)
    with capture_logs() as logs:
        done = bench(DIAMOND).feed(bad.documents[:-1]).feed(sound.documents).feed(bad.documents[-1:]).wait(5.0)
        assert not done.waiting
        done.end()
    check([frame for frame in done.frames if frame.run_uid != uid], sound)
    assert {log["run"] for log in logs if "broken" in str(log.get("error"))} == {uid}
    assert uid in {item.run_uid for item in (*done.frames, *done.asides)}


def test_several_values_for_an_event(bench: Any, tmp_path: Path) -> None:
    """A fly scan with a whole spectrum per Event, its rows joined end to end in the file."""
    recording = Recording()
    run = shapes._Run(recording, element="Co", edge="K")
    outside = {**ARRAY, "external": "STREAM:"}
    stream = run.stream("primary", energy=outside, mu=outside)
    with h5py.File(tmp_path / "fly.h5", "w") as file:
        file["energy"] = np.tile(AXIS, 3)
        file["mu"] = np.concatenate([shapes.sweep(AXIS, x=0.3 * k).mu for k in range(3)])
    announce = [run.hdf5(tmp_path / "fly.h5", name, name, stream) for name in ("energy", "mu")]
    for rows in announce:
        rows(0, 1)
        rows(1, 3)
    run.stop()
    recording.sweeps += [shapes.sweep(AXIS, x=0.3 * k, foil=False) for k in range(3)]
    done = bench().feed(recording.documents)
    assert not done.asides
    check(done.frames, recording)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    harms=st.sets(st.sampled_from(["shuffle", "jostle", "repeat", "lose"])),
    which=st.sampled_from(["diamond", "haven", "spectra"]),
    seed=st.integers(0, 2**32),
)
def test_no_disorder_makes_a_wrong_frame(bench: Any, tmp_path: Path, harms: set[str], which: str, seed: int) -> None:
    rng = random.Random(seed)
    make, config = {
        "diamond": (shapes.diamond, DIAMOND),
        "haven": (shapes.haven_step, {"preset": "haven"}),
        "spectra": (spectra, {}),
    }[which]
    recording = make(tmp_path)
    docs = [d for d in recording.documents if "lose" not in harms or rng.random() > 0.02]
    if "repeat" in harms:
        docs = [d for d in docs for _ in range(1 + (rng.random() < 0.2))]
    if "jostle" in harms:
        docs = [d for _, d in sorted(enumerate(docs), key=lambda kd: kd[0] + rng.uniform(0, 10))]
    if "shuffle" in harms:
        rng.shuffle(docs)
    done = bench(config).feed(docs).wait(10.0)
    assert not done.waiting
    done.end()
    for frame in done.frames:
        true = [s for s in recording.sweeps if s.direction == frame.direction]
        at = [np.interp(frame.energy, s.energy, s.mu) for s in true]
        assert min(np.abs(frame.mu - mu).max() for mu in at) < 1e-6
    assert len(done.frames) <= len(recording.sweeps)
    if harms <= {"repeat"}:
        check(done.frames, recording)


@settings(max_examples=60, deadline=None)
@given(
    junk=st.lists(
        st.tuples(
            st.sampled_from(["start", "descriptor", "event", "stop", "resource", "datum", "stream_resource"])
            | st.sampled_from(["event_page", "datum_page", "stream_datum", "?"]),
            st.recursive(
                st.none() | st.integers() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(
                            ["uid", "run_start", "descriptor", "data", "data_keys", "seq_num", "indices"]
                        ),
                        inner,
                        max_size=5,
                    )
                ),
                max_leaves=6,
            ),
        ),
        max_size=12,
    )
)
def test_garbage_never_raises(junk: list[Any]) -> None:
    from xas_agent.adapters.assets.filler import AssetFiller
    from xas_agent.agent.types.frame import Received

    filler = Staged(AssetFiller(AssetSettings(wait_s=0), lambda d, start: frozenset(d["data_keys"])))
    for k, (name, doc) in enumerate(junk):
        list(filler(Received(name, doc, float(k))))
        list(filler.poll(float(k)))
    list(filler.finish())
    assert not filler.waiting


def test_a_refused_path_is_told_at_once(bench: Any, tmp_path: Path) -> None:
    done = bench(roots=(str(tmp_path / "inside"),)).feed(spectra(tmp_path).documents)
    assert not done.waiting
    assert done.reasons == {"file not readable": 3}
    assert "outside of assets.roots" in done.asides[0].detail


def test_a_malformed_document_is_passed_on_with_one_warning() -> None:
    filler = AssetFiller(AssetSettings(), lambda descriptor, start: frozenset())
    malformed = RunDocument(RunInfo("run"), "descriptor", {}, 0.0)
    with capture_logs() as logs:
        assert [*filler(malformed), *filler(malformed)] == [malformed, malformed]
    assert [(log["log_level"], log["error"]) for log in logs] == [
        ("warning", "KeyError: 'data_keys'"),
        ("debug", "KeyError: 'data_keys'"),
    ]
