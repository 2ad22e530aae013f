"""Composed runs with their spectra, and what a reader makes of their documents."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import event_model
import numpy as np
from streams import Frames

from xas_agent.agent.fields.settings import FieldSettings
from xas_agent.agent.types.frame import Frame, SetAside

AXIS = 8333.0 + np.concatenate([np.arange(-40, -10, 5.0), np.arange(-10, 20, 1.0), np.arange(20, 60, 4.0)])
N = AXIS.size
I0 = 1e6

Doc = tuple[str, dict[str, Any]]
Pairs = frozenset[tuple[float, float]]


class Made:
    """A composed run: its documents and their spectra."""

    def __init__(self, **metadata: Any) -> None:
        self.run = event_model.compose_run(metadata={"element": "Ni", "edge": "K", **metadata}, validate=False)
        self.uid = self.run.start_doc["uid"]
        self.docs: list[Doc] = [("start", self.run.start_doc)]
        self.spectra: list[tuple[np.ndarray, np.ndarray]] = []
        self._of: dict[tuple[str, bool], Any] = {}

    def _descriptor(self, name: str, array: bool, extra: Sequence[str]) -> Any:
        if (name, array) not in self._of:
            about = {"source": "sim", "dtype": "array" if array else "number", "shape": [N] if array else []}
            keys: dict[str, Any] = dict.fromkeys(("energy", "I0", "It"), about)
            keys |= {key: {"source": "sim", "dtype": "number", "shape": []} for key in extra}
            self._of[name, array] = made = self.run.compose_descriptor(name=name, data_keys=keys, validate=False)
            self.docs.append(("descriptor", made.descriptor_doc))
        return self._of[name, array]

    def event(self, name: str, array: bool, energy: Any, it: Any, time: float, **extra: float) -> None:
        descriptor = self._descriptor(name, array, list(extra))
        i0 = np.full(np.shape(energy), I0) if array else I0
        data = {"energy": energy, "I0": i0, "It": it, **extra}
        doc = descriptor.compose_event(data=data, timestamps=dict.fromkeys(data, time), time=time, validate=False)
        self.docs.append(("event", doc))

    def sweep(
        self,
        *,
        array: bool = False,
        rising: bool = True,
        jitter: float = 0.0,
        seed: int = 0,
        stream: str = "primary",
        axis: np.ndarray = AXIS,
        **extra: float,
    ) -> "Made":
        rng = np.random.default_rng(seed + 1000 * len(self.spectra))
        energy = (axis if rising else axis[::-1]) + rng.uniform(-jitter, jitter, axis.size)
        it = I0 * np.exp(-rng.uniform(0.1, 2.0, axis.size))
        self.spectra.append((energy, np.log(I0 / it)))
        if array:
            self.event(stream, True, energy, it, 100.0 + len(self.docs), **extra)
        else:
            for e, value in zip(energy.tolist(), it.tolist(), strict=True):
                self.event(stream, False, e, value, 100.0 + len(self.docs), **extra)
        return self

    def stop(self, exit_status: Any = "success") -> "Made":
        self.docs.append(("stop", self.run.compose_stop(exit_status=exit_status)))
        return self

    def paged(self, size: int) -> list[Doc]:
        """Return the documents with the Events in pages."""
        docs: list[Doc] = []
        for is_event, group in itertools.groupby(self.docs, key=lambda d: d[0] == "event"):
            together: list[Any] = list(group)
            if not is_event:
                docs += together
                continue
            for k in range(0, len(together), size):
                page = event_model.pack_event_page(*(doc for _, doc in together[k : k + size]))
                docs.append(("event_page", dict(page)))
        return docs

    def truth(self) -> list[Pairs]:
        return [pairs(e, m) for e, m in self.spectra]


def pairs(energy: np.ndarray, mu: np.ndarray) -> Pairs:
    return frozenset(zip(np.round(energy, 9).tolist(), np.round(mu, 9).tolist(), strict=True))


def feed(
    docs: Sequence[Doc], fields: FieldSettings | None = None, flush: bool = True
) -> tuple[list[Frame], list[SetAside]]:
    assembler = Frames(fields)
    out = [found for k, (name, doc) in enumerate(docs) for found in assembler(name, doc, received=k * 1e-6)]
    out += assembler.flush() if flush else []
    return [o for o in out if isinstance(o, Frame)], [o for o in out if isinstance(o, SetAside)]


def reasons(asides: Sequence[SetAside]) -> dict[str, int]:
    return dict(Counter(a.reason for a in asides))
