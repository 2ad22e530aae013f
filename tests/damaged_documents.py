"""Send damaged documents to an agent that has to survive: ``python tests/damaged_documents.py COUNT [SEED]``."""

import copy
import datetime
import random
import sys
import uuid
import warnings
from collections import Counter
from typing import Any

import numpy as np
from logs import capture_logs
from made_runs import AXIS, I0, Made
from measured import cobalt

from xas_agent import XASAgent
from xas_agent.agent.types import Document
from xas_agent.app.journal import Journal

CONFIG: dict[str, Any] = {"model": {"use": ["co-k"], "threads": 1}}
WAIT_S = 120.0
FAILURES = (
    "document not taken", "documents not served", "document not served", "a step failed; the others go on",
    "documents not put in order", "documents that wait not read", "subscriber failed", "journal not written",
)  # fmt: skip
"""Messages with which the agent logs an exception."""


def _nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def _in_itself() -> list[Any]:
    inner: list[Any] = ["a", {}]
    inner[1]["again"] = inner
    return inner


JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**400, float("nan"), float("inf"), 1e308, 3 + 4j, "", "x" * 100_000, "energy", "8333",
    "\ud800", b"\xff", [], {}, (), set(), object(), [None], ["a", 1], {"": {}}, {1: 2}, {None: None}, _nested(3000),
    _in_itself(), np.int64(7), np.float16(1), np.float32("nan"), np.bool_(True), np.array(3), np.array([]),
    np.array(["x"]), np.zeros((2, 0)), np.zeros((3, 4, 5)), np.array([None, 1], object), np.ma.masked,
    np.datetime64("NaT"), np.array([1j]), np.ma.masked_array([1.0, 2.0], [True, False]), np.zeros(3, "V8"),
    datetime.datetime(2020, 1, 1), datetime.timedelta(1), range(3), Exception, uuid.UUID(int=1), slice(1),
)  # fmt: skip
NAMES = ("start", "descriptor", "event", "event_page", "bulk_events", "stop", "resource", "datum", "datum_page",
         "stream_resource", "stream_datum", "", "?", None, 3)  # fmt: skip


def cobalt_points() -> tuple[np.ndarray, np.ndarray]:
    """Return energies (eV) and It of a spectrum of Co3O4."""
    energy = 7709.0 + np.where(AXIS > 8343.0, 10.0 + 2.0 * (AXIS - 8343.0), AXIS - 8333.0)
    mu = 0.3 - 5e-4 * (energy - 7709.0) + np.interp(energy, *cobalt())
    return energy, I0 * np.exp(-mu)


def _spectrum(made: Made) -> Made:
    """Append a whole spectrum of Co3O4."""
    made.event("primary", True, *cobalt_points(), 100.0 + len(made.docs))
    return made


def run(rng: random.Random) -> list[Document]:
    """Return the documents of a good run: Events, whole spectra or pages, with or without external files."""
    made = Made(element="Co", scan_id=rng.randrange(100))
    for _ in range(rng.randrange(1, 3)):
        _spectrum(made) if rng.random() < 0.6 else made.sweep(axis=AXIS - 624.0, seed=rng.randrange(100))
    made.stop()
    docs = list(made.docs) if rng.random() < 0.7 else made.paged(rng.choice([1, 3, 20]))
    if rng.random() < 0.3:
        begin = docs[0][1]["uid"]
        resource = {"uid": "r", "run_start": begin, "spec": rng.choice(["AD_HDF5", "XSP3", "?"]), "root": "/",
                    "resource_path": "nowhere.h5", "resource_kwargs": {}, "path_semantics": "posix"}  # fmt: skip
        datum = {"datum_id": "r/0", "resource": "r", "datum_kwargs": {}}
        docs[1:1] = [("resource", resource), ("datum", datum)]
    return docs


def _places(value: Any, found: list[tuple[Any, Any]], depth: int = 0) -> list[tuple[Any, Any]]:
    """Return all pairs of a container in a document and one of its keys or indices."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        if depth < 5:
            _places(value[key], found, depth + 1)
    return found


def _copied(doc: Any) -> Any:
    try:
        return copy.deepcopy(doc)
    except RecursionError:  # damaged before by deep nesting
        return doc


def damage(docs: list[Document], rng: random.Random) -> list[Any]:
    """Return the documents of a run with several damages of any kind."""
    out: list[Any] = [(name, copy.deepcopy(doc)) for name, doc in docs]
    for _ in range(rng.choice([1, 2, 5, 20])):
        i = rng.randrange(len(out))
        name, doc = out[i]
        places = _places(doc, [])
        kind = rng.randrange(10)
        if kind < 4 and places:
            holder, key = rng.choice(places)
            holder[key] = _copied(rng.choice(JUNK))  # a further damage must not change it
        elif kind == 4 and places:
            holder, key = rng.choice(places)
            holder.pop(key)
        elif kind == 5:
            out.insert(rng.randrange(len(out)), (name, _copied(doc)))
        elif kind == 6 and len(out) > 2:
            out.pop(i)
        elif kind == 7:
            out[i] = (rng.choice(NAMES), doc)
        elif kind == 8:
            out[i] = (name, _copied(rng.choice(JUNK)))
        else:
            j = rng.randrange(len(out))
            out[i], out[j] = out[j], out[i]
    if rng.random() < 0.05:
        rng.shuffle(out)
    return out


class Watched:
    """An agent, and the results that it published for good runs."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.published: list[Document] = []
        self.agent = XASAgent.from_config(CONFIG, journal=journal)
        self.agent.subscribe(lambda name, doc: self.published.append((name, doc)))
        self.agent.start()

    def answer(self) -> dict[str, float]:
        """Return the descriptors of a good run, which has the same spectrum each time."""
        self.published.clear()
        made = _spectrum(Made(element="Co")).stop()
        for name, doc in made.docs:
            self.agent(name, doc)
        assert self.agent.wait(WAIT_S), "the agent does not finish"
        runs = {doc["uid"] for name, doc in self.published if name == "start" and doc.get("parent_uid") == made.uid}
        streams = {doc["uid"] for name, doc in self.published if name == "descriptor" and doc["run_start"] in runs}
        events = [doc for name, doc in self.published if name == "event" and doc["descriptor"] in streams]
        results = [doc["data"] for doc in events if "OS_mean" in doc["data"]]
        return (
            {key: results[0][key] for key in ("OS_mean", "CN_mean", "e0_ev", "edge_step")}
            if len(results) == 1
            else {}
        )


def campaign(count: int, seed: int = 0, journal: Journal | None = None) -> Counter[str]:
    """Send at least ``count`` documents of damaged runs, and check the agent's answer to a good run among them."""
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    with capture_logs() as logs:
        watched = Watched(journal)
        with watched.agent:
            expected = watched.answer()
            assert expected, "no result for a good frame"
            while found["documents"] < count:
                for name, doc in damage(run(rng), rng):
                    found["documents"] += 1
                    try:
                        watched.agent(name, doc)
                    except BaseException as error:
                        found[f"escaped: {error!r}"] += 1
                found["runs"] += 1
                if found["runs"] % 50 == 0 or found["documents"] >= count:
                    answer = watched.answer()
                    found[f"wrong: {answer}"] += answer != expected
                    for entry in logs:
                        if entry["event"] in FAILURES:
                            found[f"logged: {entry['event']}: {entry.get('exception', entry)}"[-600:]] += 1
                        found[f"level {entry['log_level']}"] += 1
                    logs.clear()
                else:
                    assert watched.agent.wait(WAIT_S), "the agent does not finish"
    return found


def main() -> None:
    """Print what was found."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "`torch.jit")
    found = campaign(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for what, number in sorted(found.items()):
        if number:
            print(f"{number:8}  {what}")
    sys.exit(any(number and what.startswith(("escaped", "wrong", "logged")) for what, number in found.items()))


if __name__ == "__main__":
    main()
