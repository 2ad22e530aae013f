"""A model, and watched runs of whole spectra, for tests of everything from documents to decisions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import event_model
import numpy as np
from numpy.typing import NDArray

from xas_agent.agent.types import Array, Reach
from xas_agent.agent.types.edge import Edge
from xas_agent.agent.types.estimate import DescriptorEstimate, Estimate
from xas_agent.agent.types.frame import Document
from xas_agent.agent.types.grid import Grid

EDGES = {"Co": 7709.0, "Ni": 8333.0}
GRID = Grid(-9, 98, 1, (-9, -6), (40, 98))
RELATIVE = np.arange(-60.0, 110.1, 1.0)


@dataclass
class WhiteLine:
    """A model: the mean over the first eV above the edge, as if that were the oxidation state."""

    absorber: str
    batches: list[int] = field(default_factory=list)
    edge_name: str = "K"
    sha256: str = "a" * 64
    grid: Grid = GRID
    units: dict[str, str] = field(default_factory=lambda: {"OS": "e"})
    single_site: frozenset[str] = frozenset()
    hardly_known: frozenset[str] = frozenset()
    reach: dict[str, Reach] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.absorber}-k".lower()

    @property
    def edge(self) -> Edge:
        return Edge(EDGES[self.absorber])

    def estimate(self, spectra: NDArray[np.float32], extra_sd: object = None) -> Sequence[Estimate]:
        if extra_sd is not None:  # else it is asked how its answers move with the energy
            self.batches.append(len(spectra))
        means = spectra[:, self.grid.window((0, 15))].mean(1, dtype=np.float64)
        return [Estimate({"OS": DescriptorEstimate(m, m - 0.01, m + 0.01)}, 0.1) for m in means.tolist()]


class Watched:
    """A run of whole spectra: an edge with a white line of the given height each, or whatever μ is given."""

    def __init__(self, element: str, *heights: float, claim: bool = True, at: float = 100.0, **metadata: Any) -> None:
        self.element, self.at = element, at
        known = {"element": element, "edge": "K"} if claim else {}
        self.run = event_model.compose_run(time=at, metadata={**known, **metadata})
        self.uid: str = self.run.start_doc["uid"]
        keys: Any = {
            k: {"source": "test", "dtype": "array", "shape": [len(RELATIVE)]} for k in ("energy", "I0", "It")
        }
        self.described = self.run.compose_descriptor(
            name="primary", data_keys={**keys, "voltage": {"source": "test", "dtype": "number", "shape": []}}
        )
        self.docs: list[Document] = [("start", self.run.start_doc), ("descriptor", self.described.descriptor_doc)]
        for height in heights:
            self.frame(spectrum(height))

    def frame(self, mu: Array, element: str | None = None) -> "Watched":
        i0 = np.full(len(mu), 1e6)
        energy = EDGES[element or self.element] + RELATIVE
        data = {"energy": energy, "I0": i0, "It": i0 * np.exp(-mu), "voltage": 3.9}
        t = self.at + len(self.docs)
        event = self.described.compose_event(data=data, timestamps=dict.fromkeys(data, t), time=t, validate=False)
        self.docs.append(("event", dict(event)))
        return self

    def stop(self, exit_status: Any = "success", reason: str = "") -> "Watched":
        self.docs.append(("stop", self.run.compose_stop(exit_status=exit_status, reason=reason)))
        return self


def spectrum(height: float) -> Array:
    ripple = 1e-3 * np.sin(7 * RELATIVE)  # noise, without its chance
    white_line = height * np.exp(-(((RELATIVE - 8) / 5) ** 2))
    return 0.3 + 0.8 * (0.5 + np.arctan(RELATIVE / 1.5) / np.pi + white_line) + ripple
