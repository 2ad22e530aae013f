"""The network's speed beside what the device does on a plain product of matrices and a plain copy; print a table.

    python benchmarks/device.py [--model co-k] [--device cpu|cuda] [--page FILE]

FLOP are those of the products and convolutions of the network in its plain form (tests/plain_network.py), so that
they are the same however it is computed. Bytes are those that each operation of the present form reads and writes if
none is fused. The CPU is one core, whose processor time is measured; times on a GPU include the transfers to it and
back, ``fast`` is ``serving.precision: fast``, and graphs are ``model.engine: cuda-graphs``.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import Bar, Row, fill, load, machine, markdown, number, table
from forward import plain, time_call, time_calls
from scans import in_pages, record_documents
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from xas_agent.app.agent import XASAgent
from xas_agent.app.config import load_config
from xas_agent.models import card as cards
from xas_agent.models.convert import plausible_spectra, served_of, shape_of
from xas_agent.models.engines import EngineName
from xas_agent.models.runtime import Model, configure_torch, default_threads
from xas_agent.models.training import served_weights

HEADS = ("what", "figure", "of the product", "of the copy", "bar", "")
BATCHES = {"cpu": (1, 16, 256), "cuda": (1, 32, 1024, 4096)}
SIDE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied."""
COPIED = {"cpu": 2**26, "cuda": 2**28}
"""Number of single-precision values that are copied."""
AGENT_FRAMES = {"cpu": 1000, "cuda": 20_000}
"""Number of frames of the agent for each second of the measurements."""
COUNTED_ROWS = 64
WAYS: dict[str, tuple[tuple[str, EngineName, bool], ...]] = {
    "cpu": (("exact", "torchscript", False),),
    "cuda": (
        ("exact", "torchscript", False),
        ("exact, graphs", "cuda-graphs", False),
        ("fast", "torchscript", True),
        ("fast, graphs", "cuda-graphs", True),
    ),
}
"""How the network is run: name, engine, and whether a GPU may round."""
BARS = {
    "batch 1, exact, graphs, p50 and p99": Bar(0.5),
    "batch 4096, exact": Bar(500_000, at_least=True),
    "batch 4096, fast": Bar(1_000_000, at_least=True),
    "agent from pages, exact": Bar(30_000, at_least=True),
}
"""Of single frames' p99, ms, and of the rates, frames/s, on a GPU."""
CLOCK = {"cpu": "thread_time", "cuda": "perf_counter"}


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.bytes += sum(x.nelement() * x.element_size() for x in _tensors((args, kwargs, out)))
        return out


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


@torch.inference_mode()
def cost_of(name: str) -> tuple[float, float]:
    """Return FLOP and bytes of a frame, the latter in a batch of :data:`COUNTED_ROWS`."""
    folder = cards.find(name)
    served = served_of(folder)
    spectra = plausible_spectra(served, COUNTED_ROWS)
    with FlopCounterMode(display=False) as flops:
        plain(served, shape_of(cards.read_card(folder), served_weights(folder)))(spectra)
    with Traffic() as traffic:
        served(spectra)
    return flops.get_total_flops() / COUNTED_ROWS, traffic.bytes / COUNTED_ROWS


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def product_rate(device: str) -> float:
    """Return FLOP/s of a product of large matrices in single precision."""
    a = torch.randn(SIDE[device], SIDE[device], device=device)
    return 2 * SIDE[device] ** 3 / time_call(lambda: (a @ a, _wait(device)), clock=CLOCK[device])


def copy_rate(device: str) -> float:
    """Return bytes/s, read and written, of a copy."""
    source = torch.zeros(COPIED[device], device=device)
    target = torch.empty_like(source)
    return 8 * COPIED[device] / time_call(lambda: (target.copy_(source), _wait(device)), clock=CLOCK[device])


def agent_rate(model: Model, frames: int) -> float:
    """Return frames/s of the agent in process, from pages of 250 to the documents of the last."""
    pages = in_pages(record_documents(frames))
    with XASAgent(load_config(None), [model], keep=0) as agent:
        agent.live = False  # so that no frame is left out under overload
        agent.subscribe(lambda kind, doc: None, pages=True)
        began = time.perf_counter()
        for document in pages:
            agent(*document)
        agent.wait(300)
        return frames / (time.perf_counter() - began)


def measure(name: str, device: str, seconds: float = 2.0) -> Iterator[Row]:
    """Yield the rows of the table; each time is measured for about ``seconds``."""
    threads, clock = 1 if device == "cpu" else default_threads(), CLOCK[device]
    folder, frames = cards.find(name), round(seconds * AGENT_FRAMES[device])
    flops, traffic = cost_of(name)

    def row(what: str, figure: str, value: float = 0.0, of_product: str = "", of_copy: str = "") -> Row:
        bar = BARS.get(what) if device == "cuda" else None
        return what, figure, of_product, of_copy, str(bar or ""), bar.verdict([value]) if bar else ""

    yield row(f"{name}, one frame", f"{flops / 1e6:.1f} MFLOP, {traffic / 1e6:.1f} MB")
    configure_torch(threads)
    copied = copy_rate(device)
    yield row(f"copy of {4 * COPIED[device] / 2**20:.0f} MiB", f"{copied / 1e9:.0f} GB/s", of_copy="100 %")
    spectra = plausible_spectra(served_of(folder), max(BATCHES[device])).numpy()
    for way, engine, fast in WAYS[device]:
        configure_torch(threads, fast)
        model = Model(folder, device, engine)  # anew, since an engine may keep what it prepared
        model.warm_up(BATCHES[device])
        peak = product_rate(device)
        yield row(
            f"product of {SIDE[device]} × {SIDE[device]}, {way}", f"{peak / 1e9:.0f} GFLOP/s", of_product="100 %"
        )
        single = time_calls(lambda one=model.forward: one(spectra[:1]), seconds, clock=clock)
        p50, p99 = np.percentile(single, [50, 99]) * 1e3
        yield row(f"batch 1, {way}, p50 and p99", f"{p50:.3f} ms, {p99:.3f} ms", p99)
        for n in BATCHES[device]:
            rate = n / time_call(lambda one=model.forward, n=n: one(spectra[:n]), seconds, clock=clock)
            shares = (f"{100 * rate * flops / peak:.1f} %", f"{100 * rate * traffic / copied:.1f} %")
            yield row(f"batch {n}, {way}", f"{number(rate)} frames/s", rate, *shares)
        rate = agent_rate(model, frames)
        yield row(f"agent from pages, {way}", f"{number(rate)} frames/s", rate)


def report(name: str, device: str, page: Path | None = None, seconds: float = 2.0) -> str:
    """Return the table of a device, and write it into a page."""
    rows = list(measure(name, device, seconds))
    what = torch.cuda.get_device_name() if device == "cuda" else f"One core of {machine()}"
    conditions = f"{what}; load average at the end {load()}"
    if page is not None:
        fill(page, device, f"{conditions}.\n\n{markdown(HEADS, rows)}")
    return f"{conditions}\n\n{table(HEADS, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="co-k")
    parser.add_argument("--device", choices=[*BATCHES], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    parser.add_argument("--page", type=Path, help="page into which the table is written")
    options = parser.parse_args()
    print(report(options.model, options.device, options.page, options.seconds))


if __name__ == "__main__":
    main()
