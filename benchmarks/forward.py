"""The bare forward of the network: the present one, and that of version 0.1.0 with the same weights beside it.

The network of 0.1.0 is :mod:`plain_network`, in TorchScript, in batches of 16 rows, in a process that frees memory as
that version did.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scans import CONTEXT

from xas_agent.models import card as cards
from xas_agent.models.convert import plausible_spectra, served_of, shape_of
from xas_agent.models.runtime import Model, configure_torch, default_threads
from xas_agent.models.training import served_weights

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from plain_network import plain

FRAME_PERIOD_S = 0.06
FORMER_ROWS = 16
BATCHES = (16, 64, 256)
_SECONDS = 0.8

Spectra = NDArray[np.float32]
Timer = Callable[..., float]
"""Takes spectra and the keywords of :func:`time_call`; returns the median time of a forward, s."""


def time_call(
    call: Callable[[], Any], seconds: float = _SECONDS, pause_s: float = 0.0, clock: str = "perf_counter"
) -> float:
    """Return the median time of a call, s, by a clock of :mod:`time`.

    It is repeated for about ``seconds`` after a warm-up, with a pause before each.
    """
    return float(np.median(time_calls(call, seconds, pause_s, clock)))


def time_calls(
    call: Callable[[], Any], seconds: float = _SECONDS, pause_s: float = 0.0, clock: str = "perf_counter"
) -> list[float]:
    """Return the time of each call, as :func:`time_call`."""
    for _ in range(3):
        call()
    now, durations = getattr(time, clock), []
    until = time.perf_counter() + seconds
    while not durations or time.perf_counter() < until:
        time.sleep(pause_s)
        began = now()
        call()
        durations.append(now() - began)
    return durations


def _former_network(folder: Path) -> Callable[[Spectra], Spectra]:
    shape = shape_of(cards.read_card(folder), served_weights(folder))
    module = torch.jit.freeze(torch.jit.script(plain(served_of(folder), shape).eval()))

    @torch.inference_mode()
    def forward(spectra: Spectra) -> Spectra:
        x = torch.from_numpy(spectra)
        return torch.cat([module(part) for part in x.split(FORMER_ROWS)]).numpy()

    return forward


def _serve_former(folder: Path, requests: Any) -> None:
    """Answer requests of spectra and keywords by answers and time, until there are none."""
    forward = _former_network(folder)
    while (request := requests.recv()) is not None:
        spectra, threads, keywords = request
        torch.set_num_threads(threads)
        requests.send((forward(spectra), time_call(lambda x=spectra: forward(x), **keywords)))


class Networks:
    """Both networks of a model, loaded once for all rounds."""

    def __init__(self, name: str, requests: Any) -> None:
        folder = cards.find(name)
        self.model = Model(folder, device="cpu")
        self.model.warm_up()
        self.spectra: Spectra = plausible_spectra(served_of(folder), max(BATCHES)).numpy()
        self._requests = requests
        fastest = [max(BATCHES, key=lambda n, t=timer: n / t(self.spectra[:n])) for timer in (self.now, self.former)]
        self._now_rows, self._former_rows = fastest

    def now(self, spectra: Spectra, **keywords: Any) -> float:
        """Time the present network, as :data:`Timer`."""
        return time_call(lambda: self.model.forward(spectra), **keywords)

    def former(self, spectra: Spectra, **keywords: Any) -> float:
        """Time the network of 0.1.0, as :data:`Timer`."""
        return self._ask(spectra, **keywords)[1]

    def rates(self) -> tuple[float, float]:
        """Return frames/s of the present network and of that of 0.1.0, each for its fastest batch."""
        now, former = self.spectra[: self._now_rows], self.spectra[: self._former_rows]
        return len(now) / self.now(now), len(former) / self.former(former)

    def measure(self) -> dict[str, float]:
        """Return the figures of a round: processor time of one frame, rates, and the difference of the answers."""
        one, threads = self.spectra[:1], torch.get_num_threads()
        torch.set_num_threads(1)  # its processor time is then that of this thread
        now, former = self.now(one, clock="thread_time"), self.former(one, clock="thread_time")
        torch.set_num_threads(threads)
        difference = np.abs(self._ask(self.spectra[:64], seconds=0.0)[0] - self.model.forward(self.spectra[:64]))
        rates = self.rates()
        return {
            "forward_one_core_ms": 1e3 * now,
            "former_one_core_ms": 1e3 * former,
            "former_of_forward_one_core": former / now,
            "forward_frames_per_s": rates[0],
            "former_frames_per_s": rates[1],
            "forward_of_former_frames_per_s": rates[0] / rates[1],
            "answers_difference": float(difference.max()),
        }

    def _ask(self, spectra: Spectra, **keywords: Any) -> tuple[Spectra, float]:
        self._requests.send((spectra, torch.get_num_threads(), keywords))
        return self._requests.recv()


@contextmanager
def networks(name: str) -> Iterator[Networks]:
    """Load both networks; that of 0.1.0 in a process that ends with the context."""
    configure_torch(default_threads())
    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_serve_former, args=(cards.find(name), there), daemon=True)
    process.start()
    there.close()
    yield Networks(name, here)
    here.send(None)
    process.join()
