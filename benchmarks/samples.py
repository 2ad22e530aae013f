"""Count the samples that a search needs until one has a wanted oxidation state, against a random order.

    python benchmarks/samples.py [--seeds 20] [--samples 40]

A robot's magazine holds cathodes that were annealed at known temperatures, evenly from 300 to 900 °C. Their lithium
content x falls with the temperature by a sigmoid of unknown place, width and height, which the seed draws; single
samples scatter about it (σ = 0.01), and so do their spectra (σ = 0.003 of the absorption at each point, 1 eV apart).
The agent estimates OS with the model ``co-k``. A sample is found when its estimate is within 0.05 e of 3.4 e with a
probability of 0.9, by its scatter of repeats. In a random order, the first of K such samples among N is found after
(N + 1) / (K + 1) ones on average, and that there is none after all N; the search gives up when it expects to gain
less than 0.001 e.
"""

import argparse
import math
import time
from collections.abc import Iterator

import event_model
import numpy as np
from scipy.special import ndtr

from xas_agent import XASAgent
from xas_agent.adapters.ask_tell import AgentOutcomes
from xas_agent.agent.propose import SampleProposer, SampleSettings
from xas_agent.agent.types import Array, Document, edge_ev
from xas_agent.sim_beamline.sample_changer import magazine
from xas_agent.sim_beamline.spectra import ReferenceSpectra, absorption

TARGET, TOLERANCE = 3.4, 0.05
ENERGY = edge_ev("Co") + np.arange(-80.0, 160.0)
NOISE, SAMPLE_SD = 0.003, 0.01
SPECTRA = ReferenceSpectra(1.0)
SETTINGS = SampleSettings(
    quantity="OS",
    aim=TARGET,
    tolerance=TOLERANCE,
    min_gain=0.001,
    features=("celsius",),
    parameters=("sample",),
    unit="e",
)


def lithium(celsius: Array, seed: int) -> Array:
    """Return the lithium contents of samples annealed at temperatures (N,)."""
    draw = np.random.default_rng([seed, 0])
    highest, height = draw.uniform(0.85, 1.0), draw.uniform(0.45, 0.8)
    middle, width = draw.uniform(450, 750), draw.uniform(30, 100)
    x = highest - height / (1 + np.exp(-(celsius - middle) / width))
    return np.clip(x + draw.normal(0, SAMPLE_SD, len(celsius)), 0, 1)


def documents(names: list[str], x: Array, seed: int) -> Iterator[Document]:
    """Yield the documents of a run with one spectrum of each sample, in transmission with a foil."""
    draw, foil = np.random.default_rng([seed, 1]), SPECTRA.foil(ENERGY)
    metadata = {"plan_name": "samples", "element": "Co", "blop_acquisition_order": names}
    run = event_model.compose_run(metadata=metadata)
    yield "start", dict(run.start_doc)
    key = {"source": "simulated", "dtype": "array", "shape": [len(ENERGY)]}
    stream = run.compose_descriptor(name="primary", data_keys=dict.fromkeys(("energy", "I0", "It", "Iref"), key))
    yield "descriptor", dict(stream.descriptor_doc)
    for content in x:
        mu = absorption(SPECTRA.cathode(ENERGY, content), ENERGY, 1.0, 0.6) + draw.normal(0, NOISE, len(ENERGY))
        it = np.exp(-mu)
        data = {"energy": ENERGY, "I0": np.ones(len(ENERGY)), "It": it, "Iref": it * np.exp(-foil)}
        yield "event", dict(stream.compose_event(data=data, timestamps=dict.fromkeys(data, time.time())))
    yield "stop", dict(run.compose_stop())


def estimated(
    agent: XASAgent, outcomes: AgentOutcomes, names: list[str], x: Array, seed: int
) -> list[tuple[float, float]]:
    """Return OS of each sample as the agent estimates it, with its scatter of repeats."""
    uid = ""
    for name, doc in documents(names, x, seed):
        uid = doc["uid"] if name == "start" else uid
        agent(name, doc)
    return [found["OS"] for found in outcomes(uid, [{"_id": name} for name in names])]


def searched(celsius: Array, names: list[str], values: list[tuple[float, float]]) -> tuple[int, int]:
    """Return how many samples a search measures, and which one is the best of them."""
    rows = [{"sample": name, "celsius": float(c)} for name, c in zip(names, celsius, strict=True)]
    proposer, count = SampleProposer(rows, SETTINGS), 0
    while not proposer.should_stop()[0]:
        [suggestion] = proposer.suggest()
        proposer.ingest([{"_id": suggestion["_id"], "OS": values[suggestion["_id"]]}])
        count += 1
    return count, proposer.get_best_points()[0][0]


def within(value: float, error: float) -> bool:
    """Return whether a sample with this estimate and standard error is found."""
    low, high = ((TARGET + off - value) / max(error, 1e-12) for off in (-TOLERANCE, TOLERANCE))
    return bool(ndtr(high) - ndtr(low) >= 0.9)


def rms(values: list[float]) -> float:
    """Return the root-mean-square."""
    return math.sqrt(float(np.mean(np.square(values))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samples", type=int, default=40)
    args = parser.parse_args()
    celsius, names = np.linspace(300, 900, args.samples), magazine(args.samples)
    counts, randoms, off, missed = list[int](), list[float](), list[float](), 0
    print("| seed | samples within 0.05 e | searched | random order | OS of the best, e | true, e |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    with XASAgent.from_config({"model": {"use": ["co-k"]}}) as agent:
        agent.live = False
        outcomes = AgentOutcomes.of(agent, {"OS": "OS"}, errors="frame", failed="nan")
        for seed in range(args.seeds):
            x = lithium(celsius, seed)
            values = estimated(agent, outcomes, names, x, seed)
            hits = sum(within(*value) for value in values)
            count, best = searched(celsius, names, values)
            counts.append(count)
            randoms.append((args.samples + 1) / (hits + 1) if hits else args.samples)
            found = within(*values[best])
            missed += bool(hits) and not found
            off += [4 - float(x[best]) - TARGET] if found else []
            print(f"| {seed} | {hits} | {count} | {randoms[-1]:.1f} | {values[best][0]:.3f} | {4 - x[best]:.3f} |")
    ratio = np.mean(counts) / np.mean(randoms)
    print(
        f"mean: {np.mean(counts):.2f} samples searched, {np.mean(randoms):.2f} in a random order, ratio {ratio:.2f}; "
        f"given up although there was one: {missed}; true OS of those found off by {rms(off):.3f} e (RMS)"
    )
    if ratio > 0.5:
        raise SystemExit("the search needs more than half of the samples of a random order")


if __name__ == "__main__":
    main()
