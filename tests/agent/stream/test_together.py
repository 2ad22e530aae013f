"""Spectra that are formed together are those that each Event gives alone."""

import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import event_model
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xas_agent.agent.stream import FrameReader
from xas_agent.agent.stream import frames as frames_module
from xas_agent.agent.types import Document, Received, RunDocument

POINTS = 40
E = np.linspace(7660.0, 7860.0, POINTS)
Data = dict[str, Any]


def spectrum(n: int, kind: str) -> Data:
    noise = np.random.default_rng(n).normal(scale=1e-3, size=(4, POINTS))
    mu = 0.5 + np.arctan(E - 7709) / np.pi + noise[0]
    i0 = 1e6 * (1 + noise[1])
    if kind == "fluorescence":
        return {"energy": E, "I0": i0, "If": i0 * mu}
    if kind == "mu":
        return {"energy": E, "mu": mu}
    it = i0 * np.exp(-mu)
    return {"energy": E, "I0": i0, "It": it, "Ir": it * np.exp(-mu + noise[2])}


def with_value(place: int | slice, value: float) -> Callable[[Data], Data]:
    def change(data: Data) -> Data:
        key = [*data][-1 if len(data) < 4 else 2]
        column = data[key].copy()
        column[place] = value
        return {**data, key: column}

    return change


CHANGES: dict[str, Callable[[Data], Data]] = {
    "none": lambda d: d,
    "an encoder's energies": lambda d: {**d, "energy": d["energy"] + 0.01 * np.sin(np.arange(len(d["energy"])))},
    "lists": lambda d: {k: v.tolist() for k, v in d.items()},
    "falling": lambda d: {k: v[::-1] for k, v in d.items()},
    "padded": lambda d: {k: np.where(np.arange(POINTS) > 35, 0.0, v) for k, v in d.items()},
    "short": lambda d: {k: v[:-3] for k, v in d.items()},
    "shifted": lambda d: {**d, "energy": d["energy"] + 0.1},
    "single": lambda d: {k: v.astype(np.float32) for k, v in d.items()},
    "a column is missing": lambda d: {k: v for k, v in d.items() if k != [*d][-1]},
    "negative": lambda d: {k: v if k in ("energy", "mu") else -v for k, v in d.items()},
    "dark": lambda d: {k: np.where(np.arange(POINTS) > 30, v / 20, v) if k == "I0" else v for k, v in d.items()},
    "constant I0": lambda d: {k: v * 0 + 1e6 if k == "I0" else v for k, v in d.items()},
    "NaN": with_value(3, np.nan),
    "infinite": with_value(5, np.inf),
    "zero": with_value(-1, 0.0),
    "saturated": with_value(slice(10, 16), 4e6),
    "constant": with_value(slice(None), 5.0),
}


def documents(rows: list[Data]) -> tuple[list[Document], list[Document], Document]:
    run = event_model.compose_run(metadata={"element": "Co", "edge": "K"})
    keys = {
        k: {"dtype": "array", "shape": [POINTS], "source": "test"} for k in ("energy", "I0", "It", "Ir", "If", "mu")
    }
    used = {key: keys[key] for key in dict.fromkeys(key for row in rows for key in row)}
    stream = run.compose_descriptor(name="primary", data_keys=used)
    events = [stream.compose_event(data=d, timestamps=dict.fromkeys(d, 0.0), validate=False) for d in rows]
    begin = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    return begin, [("event", dict(event)) for event in events], ("stop", dict(run.compose_stop()))


def received(documents: list[Document]) -> list[Received]:
    return [Received(name, doc, time.monotonic()) for name, doc in documents]


def plain(outcome: Any) -> Any:
    """An outcome with all its bits, but without the times of arrival."""
    if isinstance(outcome, RunDocument):
        return outcome.name
    values = {f.name: getattr(outcome, f.name) for f in fields(outcome) if f.name != "received"}
    return {k: (v.tobytes(), v.dtype, v.shape) if isinstance(v, np.ndarray) else v for k, v in values.items()}


@given(
    kind=st.sampled_from(["transmission", "fluorescence", "mu"]),
    changes=st.lists(st.sampled_from([*CHANGES]), min_size=1, max_size=8),
    common=st.sampled_from(["none", "falling", "single", "constant I0"]),
)
def test_outcomes_are_those_of_single_events(kind, changes, common):
    rows = [CHANGES[change](CHANGES[common](spectrum(n, kind))) for n, change in enumerate(changes)]
    begin, events, stop = documents(rows)
    alone, together = FrameReader(), FrameReader()
    expected = [plain(o) for document in received([*begin, *events, stop]) for o in alone(document)]
    found = [plain(o) for document in received(begin) for o in together(document)]
    batch = received([*events, stop])
    with together.together(batch):
        found += [plain(o) for document in batch for o in together(document)]
    assert found == expected


@pytest.mark.parametrize("kind", ["transmission", "fluorescence", "mu"])
@pytest.mark.parametrize("paged", [False, True])
def test_clean_spectra_are_formed_together(kind, paged, monkeypatch):
    formed_alone: list[int] = []
    original = frames_module.form_spectrum
    monkeypatch.setattr(frames_module, "form_spectrum", lambda *args: formed_alone.append(1) or original(*args))
    begin, events, _ = documents([spectrum(n, kind) for n in range(20)])
    reader = FrameReader()
    for document in received(begin):
        reader(document)
    batch = received(events)
    if paged:
        page = event_model.pack_event_page(*(doc for _, doc in events))
        batch = received([("event_page", dict(page))])
    with reader.together(batch):
        frames = [frame for document in batch for frame in reader(document)]
    assert [frame.seq_num for frame in frames] == [*range(1, 21)]
    assert all(frame.energy is frames[0].energy for frame in frames)
    assert not formed_alone
