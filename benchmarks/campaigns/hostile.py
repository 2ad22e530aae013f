"""Messages that no beamline should send: damaged and hostile documents, and bytes that are no document."""

import copy
import pickle
import random
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import event_model
import numpy as np

from xas_agent.adapters.codecs import to_msgpack

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from damaged_documents import damage, run

Message = bytes | tuple[Any, Any]
"""A message on the wire, or a document."""
_KEYS = ("energy", "I0", "It")


class _Trap:
    """An object whose pickle runs a command for an hour when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("sleep 3600",)


def broken_bytes(rng: random.Random) -> list[Message]:
    """Messages of a document that are cut, changed, or packed otherwise."""
    name, doc = rng.choice(run(rng))
    whole = b" ".join((b"", name.encode(), to_msgpack(doc)))
    changed = bytearray(whole)
    for _ in range(rng.randrange(1, 6)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    huge = {b"nd": True, b"type": "<f8", b"kind": b"", b"shape": [2**40], b"data": b""}
    objects = {**huge, b"type": "|O", b"shape": [1], b"data": pickle.dumps([_Trap()])}
    return [
        b"", b" ", b"\x00" * 40, b" event", b" event ", b" unknown " + whole, whole + whole,
        whole[: rng.randrange(len(whole))],
        bytes(changed),
        b" event " + rng.randbytes(rng.randrange(200)),
        b" event " + pickle.dumps(_Trap()),
        b" event \xdd\xff\xff\xff\xff",  # a list of 2**32 - 1 items
        b" event " + b"\x91" * 5000,  # one list in the other
        b" event \xc9\x7f\xff\xff\xff\x01",
        b" event " + to_msgpack({"data": {"energy": huge}}),
        b" event " + to_msgpack({"data": {"energy": objects}}),
    ]  # fmt: skip


def _opened_run(**metadata: Any) -> tuple[Any, Any, list[Message]]:
    made = event_model.compose_run(metadata={"element": "Co", "edge": "K", **metadata}, validate=False)
    about = {"source": "campaign", "dtype": "array", "shape": [10]}
    stream = made.compose_descriptor(name="primary", data_keys=dict.fromkeys(_KEYS, about), validate=False)
    return made, stream, [("start", made.start_doc), ("descriptor", stream.descriptor_doc)]


def _event(stream: Any, rng: random.Random, points: int, **changes: Any) -> Message:
    energy = np.linspace(7640, 7860, points) + np.random.default_rng(rng.randrange(2**32)).normal(0, 5, points)
    data = {"energy": energy, "I0": np.ones(points), "It": np.ones(points)}
    event = stream.compose_event(data=data, timestamps=dict.fromkeys(data, 0.0), validate=False)
    return "event", {**event, **changes}


def stray_starts(rng: random.Random) -> list[Message]:
    """More RunStarts than runs may be open, and nothing else of these runs."""
    return [m for _ in range(70) for m in _opened_run(scan_id=rng.randrange(100))[2][:1]]


def orphans(rng: random.Random) -> list[Message]:
    """Events of runs that nobody announced, some of them large."""
    stream = _opened_run()[1]
    return [_event(stream, rng, rng.choice([10, 10, 10, 20_000])) for _ in range(30)]


def jitter(rng: random.Random) -> list[Message]:
    """An Event whose energies go forth and back from point to point."""
    _, stream, docs = _opened_run()
    return [*docs, _event(stream, rng, 30_000)]


def many_readings(rng: random.Random) -> list[Message]:
    """An Event with thousands of readings."""
    made, _, docs = _opened_run()
    names = [f"reading_{k}" for k in range(rng.choice([600, 5000]))]
    about = {"source": "campaign", "dtype": "number", "shape": []}
    stream = made.compose_descriptor(
        name="baseline", data_keys=dict.fromkeys([*names, *_KEYS], about), validate=False
    )
    data = dict.fromkeys([*names, *_KEYS], 1.0)
    events = [stream.compose_event(data=data, timestamps=dict.fromkeys(data, 0.0), validate=False) for _ in range(3)]
    return [docs[0], ("descriptor", stream.descriptor_doc), *(("event", event) for event in events)]


def descending(rng: random.Random) -> list[Message]:
    """Events numbered from high to low, with gaps."""
    _, stream, docs = _opened_run()
    return [*docs, *(_event(stream, rng, 10, seq_num=number) for number in range(1500, 0, -rng.choice([5, 7])))]


def endless(rng: random.Random) -> list[Message]:
    """A run that never stops."""
    _, stream, docs = _opened_run(sample_name=str(uuid.uuid4()))
    return [*docs, *(_event(stream, rng, 10) for _ in range(rng.randrange(5)))]


def imitations(rng: random.Random) -> list[Message]:
    """A run that says it is an agent's, and a second start and stop of one run."""
    made, stream, docs = _opened_run(xas_agent=True)
    twice, other, again = _opened_run()
    stop = twice.compose_stop()
    return [*docs, _event(stream, rng, 10), ("stop", made.compose_stop()), *again, *again, _event(other, rng, 10),
            ("stop", stop), ("stop", stop)]  # fmt: skip


def files(rng: random.Random) -> list[Message]:
    """Documents that name files nobody should read, and rows that are not there."""
    made, stream, docs = _opened_run()
    path = rng.choice(["/proc/kmsg", "/dev/zero", "/etc/passwd", "/proc/self/mem", "../../x.h5", "\0", "/"])
    begin = made.start_doc["uid"]
    resource = {"uid": str(uuid.uuid4()), "run_start": begin, "mimetype": "application/x-hdf5",
                "uri": f"file://localhost{path}", "data_key": "energy", "parameters": {"dataset": "x"}}  # fmt: skip
    rows = {"start": 0, "stop": rng.choice([1, 5_000_000, 10**12, -1])}
    datum = {"uid": str(uuid.uuid4()), "stream_resource": resource["uid"], "seq_nums": {"start": 1, "stop": 2},
             "indices": rows, "descriptor": stream.descriptor_doc["uid"]}  # fmt: skip
    old = {"uid": str(uuid.uuid4()), "run_start": begin, "spec": "AD_HDF5", "root": "/", "resource_path": path,
           "resource_kwargs": {"frame_per_point": 10**9}, "path_semantics": "posix"}  # fmt: skip
    item = {"datum_id": f"{old['uid']}/0", "resource": old["uid"], "datum_kwargs": {"point_number": 10**9}}
    filled = _event(stream, rng, 10, filled={"energy": False}, external=1)
    assert isinstance(filled, tuple)
    event = copy.copy(filled[1])
    event["data"] = {**event["data"], "energy": item["datum_id"]}
    return [*docs, ("stream_resource", resource), ("stream_datum", datum), ("resource", old), ("datum", item),
            ("event", event)]  # fmt: skip


def damaged(rng: random.Random) -> list[Message]:
    """A run with damages of any kind."""
    return [*damage(run(rng), rng)]


KINDS: dict[Callable[[random.Random], list[Message]], float] = {
    damaged: 1.0, broken_bytes: 0.3, imitations: 0.1, endless: 0.1, stray_starts: 0.02, orphans: 0.03,
    descending: 0.02, files: 0.05, jitter: 0.01, many_readings: 0.01,
}  # fmt: skip
"""Each kind with its weight."""
