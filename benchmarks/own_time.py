"""The agent's own processor time: without its network, as a share of the whole, and of the alignment."""

import time

import numpy as np
import torch
from forward import Networks, time_call
from scans import Document, in_pages, make_step_documents, record_documents

from xas_agent.agent.spectra import AlignmentSettings, Batch, align
from xas_agent.app.agent import XASAgent
from xas_agent.app.config import load_config
from xas_agent.models import card
from xas_agent.models.runtime import Model


class TimedModel(Model):
    """A model that adds up the processor time of its forward, s."""

    spent_s = 0.0

    def forward(self, spectra: np.ndarray) -> np.ndarray:
        began = time.thread_time()
        try:
            return super().forward(spectra)
        finally:
            self.spent_s += time.thread_time() - began


def _answer(name: str, documents: list[Document], *, pages: bool) -> tuple[float, float]:
    """Return the processor time, s, of the agent, documents in to documents out, and of the forward in it."""
    model = TimedModel(card.find(name), device="cpu")
    model.warm_up()
    with XASAgent(load_config(None), [model], keep=0) as agent:
        agent.live = False  # so that no frame is left out under overload
        agent.subscribe(lambda kind, doc: None, pages=pages)
        model.spent_s, began = 0.0, time.process_time()
        for document in documents:
            agent(*document)
        agent.wait(300)
        return time.process_time() - began, model.spent_s


def measure_own_time(networks: Networks, frames: int) -> dict[str, float]:
    """Return the processor time per frame, ms, and per Event of a step scan, µs, of the agent without its network.

    Documents come as Events of whole spectra, as pages of 250 of them, or as Events of points. The agent's own are
    taken as they are published, in pages; for the time of the whole as Events.
    """
    name, threads, points = networks.model.name, torch.get_num_threads(), 5 * frames
    torch.set_num_threads(1)  # its processor time is then that of the agent's thread
    events = record_documents(frames)
    whole_s, forward_s = _answer(name, events, pages=False)
    figures = {"agent_processor_ms": 1e3 * whole_s / frames, "forward_of_agent_processor": forward_s / whole_s}
    cases = {
        "own_from_events_ms": (events, 1e3 / frames),
        "own_from_pages_ms": (in_pages(events), 1e3 / frames),
        "own_per_step_event_us": (make_step_documents(points), 1e6 / points),
    }
    for key, (documents, scale) in cases.items():
        whole_s, forward_s = _answer(name, documents, pages=True)
        figures[key] = scale * (whole_s - forward_s)
    torch.set_num_threads(threads)
    return figures


def measure_alignment(networks: Networks) -> dict[str, float]:
    """Time the alignment of a spectrum of 341 points with a reference channel, alone and in a batch of 256, µs."""
    model = networks.model
    events = [doc["data"] for kind, doc in record_documents(256) if kind == "event"]
    energy = events[0]["energy"]
    mu = np.stack([np.log(e["I0"] / e["It"]) for e in events])
    reference = np.stack([np.log(e["It"] / e["Iref"]) for e in events])
    settings = AlignmentSettings()

    def each(n: int) -> float:
        frames = Batch(energy, mu[:n], reference=reference[:n])
        return 1e6 / n * time_call(lambda: align(frames, model.grid, model.edge, settings), clock="thread_time")

    return {"alignment_alone_us": each(1), "alignment_batched_us": each(256)}
