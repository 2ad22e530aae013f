"""Count the glitches found and the good points altered in measured and computed spectra.

    python benchmarks/glitches.py [DATA] [--gross] [--noise 0.003] [--threshold 3.5] [--narrowest 1.5]

DATA contains exp/xdi, exp/operando_linio2 and feff. Without it, only frames of the simulated beamline are searched.

The first part, and the only one with --gross, is the search for gross glitches in spectra as measured. One glitch, up
or down, is placed at each point in turn. The benchmark prints the fraction found, the points altered in spectra
without glitches (by the fine search too) and the processor time per frame.

The second part is the fine search. Glitches of 5 to 50 σ, up or down, replace 5 % of the points at random. σ combines
the noise of each spectrum with the added noise (--noise, in edge steps). Without added noise, σ of many files is 1e-4
or less, and their good points have steps as large as glitches. The benchmark prints the fraction found of all
glitches, of those of 5 to 10 σ and of those within 15 eV of E0; the good points altered ("touched") beside them and
in spectra without glitches; the time per spectrum; and the fraction that interpolation can find at best, because it
has residuals at good points too. It then compares estimates of the shipped models with and without glitches, repaired
and unrepaired: the fraction of means that stay within the 90 % interval of the spectrum without glitches, and the
95 % quantile of their changes, in half-widths of that interval.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from xas_agent.adapters.formats import flaw, read_spectra
from xas_agent.agent.spectra import AlignmentSettings, Batch, align
from xas_agent.agent.spectra.glitches import Glitches, GlitchSettings, find_glitches
from xas_agent.agent.spectra.gross_glitches import find_gross_glitches, may_have_gross_glitches
from xas_agent.agent.spectra.noise import estimate_noise
from xas_agent.agent.spectra.normalisation import normalise
from xas_agent.agent.types import Array, Estimate
from xas_agent.models import card
from xas_agent.models.runtime import Model, configure_torch, default_threads
from xas_agent.sim_beamline.beamline import BeamlineSettings, SimBeamline

GLITCH_FRACTION = 0.05
GLITCH_SIZES_SD = (5.0, 50.0)
SMALL_GLITCH_SD = 10.0
GROSS_SIZES_EDGE_STEPS = (0.05, 0.1, 0.2, 0.5)
NOISY_COPIES = 40
ESTIMATED_COPIES = 20
MODELS = {"Cu": "cu-k", "Ni": "ni-k", "Co": "co-k"}
NEAR_EV = 15.0
Mask = NDArray[np.bool_]


class Tally:
    """Counts of glitches and good points over many spectra."""

    def __init__(self) -> None:
        self.counts = np.zeros(10)

    def add(self, spoiled: Glitches, clean: Glitches, inserted: Mask, size_sd: Array, near: Mask) -> None:
        groups = inserted, inserted & (size_sd < SMALL_GLITCH_SD), inserted & near, ~inserted
        counts = [n for group in groups for n in ((spoiled.found & group).sum(), group.sum())]
        self.counts += [*counts, clean.found.sum(), clean.found.size]

    def format(self, name: str, seconds: float = np.nan) -> str:
        found, small, near, touched, clean = (100 * k / n if n else np.nan for k, n in self.counts.reshape(-1, 2))
        return (
            f"{name:34s} found {found:5.1f} %  5–10 σ {small:5.1f} %  near E0 {near:5.1f} %  "
            f"touched {touched:5.2f} %  without glitches {clean:5.2f} %  {1e3 * seconds:6.2f} ms"
        )


def insert_glitches(mu: Array, sigma: Array, rng: np.random.Generator) -> tuple[Array, Mask, Array]:
    """Return spectra with glitches, the mask of the glitches, and sizes in σ (all of the shape of ``mu``)."""
    inserted, size_sd = rng.random(mu.shape) < GLITCH_FRACTION, rng.uniform(*GLITCH_SIZES_SD, mu.shape)
    return np.where(inserted, mu + rng.choice([-1, 1], mu.shape) * size_sd * sigma, mu), inserted, size_sd


def time_search(*args, **options) -> tuple[Glitches, float]:
    """Return the glitches found and the seconds per spectrum, after a warm-up."""
    find_glitches(*args, **options)
    began = time.perf_counter()
    glitches = find_glitches(*args, **options)
    return glitches, (time.perf_counter() - began) / len(glitches.mu)


def detectable_fraction(energy: Array, mu: Array, sigma: float, threshold: float) -> float:
    """Return the fraction of glitches larger than ``threshold`` times the interpolation residual of clean spectra.

    The residual is the RMS over 15 points of the best polynomial through four neighbours on either side, from spectra
    (N, M) without glitches. A search that finds more also alters good points, or knows more than the points.
    """
    points = mu.shape[1]
    index = np.clip(np.arange(points)[:, None] + np.delete(np.arange(-4, 5), 4), 0, points - 1)
    x = (energy[index] - energy[:, None]) / np.ptp(energy[index], axis=1, keepdims=True)
    residual = np.full(mu.shape, np.inf)
    for order in range(6):
        w = np.linalg.pinv(x[..., None] ** np.arange(order + 1))[:, 0]  # value at the point itself
        error = (mu - (w * mu[:, index]).sum(-1)) / np.sqrt(1 + (w * w).sum(-1))
        residual = np.minimum(residual, np.sqrt(uniform_filter1d(error**2, 15, axis=1)))
    low, high = GLITCH_SIZES_SD
    return float(np.clip((high - np.maximum(threshold * residual / sigma, low)) / (high - low), 0, 1).mean())


def print_gross(label: str, spectra: dict[str, tuple[Array, Array]]) -> None:
    """Print the results of the gross search in spectra: energies (M,) and μ as measured (N, M), by name."""
    points = sum(mu.size for _, mu in spectra.values())
    normalised = {name: normalise(energy, mu) for name, (energy, mu) in spectra.items()}
    e0 = {name: float(np.median(n.e0)) for name, n in normalised.items()}
    for size in GROSS_SIZES_EDGE_STEPS:
        found: dict[str, Mask] = {}
        for name, (energy, mu) in spectra.items():
            point = np.arange(len(energy))
            row = point % len(mu)
            spoiled = mu[row]
            spoiled[point, point] += size * normalised[name].edge_step[row] * (-1.0) ** point
            glitches = find_gross_glitches(energy, spoiled, e0[name])
            found[name] = np.zeros(len(point), bool) if glitches is None else glitches.found[point, point]
        overall = 100 * np.concatenate([*found.values()]).mean()
        percent = {name: 100 * f.mean() for name, f in found.items()}
        worst = min(percent, key=lambda name: percent[name])
        span = np.ptp(spectra[worst][1][0]) / normalised[worst].edge_step[0]
        print(
            f"{label}, a point off by {100 * size:g} % of the edge step: {overall:.1f} % found, by file "
            f"{np.median([*percent.values()]):.1f} % (median), {percent[worst]:.1f} % (minimum: {worst}, with μ over "
            f"{span:.1f} edge steps)"
        )
    clean = (find_gross_glitches(energy, mu, e0[name]) for name, (energy, mu) in spectra.items())
    touched = sum(int(c.count.sum()) for c in clean if c is not None)
    fine = sum(find_glitches(e, mu, e0[k], GlitchSettings()).count.sum() for k, (e, mu) in spectra.items())
    print(f"{label}, without glitches: {touched} of {points} points touched, by the fine search {fine}")
    durations = [
        time_call_ms(lambda e=e, mu=mu: may_have_gross_glitches(e[None], mu[:1])) for e, mu in spectra.values()
    ]
    print(f"{label}, test for gross glitches: {min(durations):.2f}…{max(durations):.2f} ms a frame")


def time_call_ms(call: Callable[[], object]) -> float:
    """Return the median processor time of one call in ms, after a warm-up."""
    durations: list[float] = []
    for _ in range(12):
        began = time.process_time()
        call()
        durations.append(1e3 * (time.process_time() - began))
    return float(np.median(durations[1:]))


def print_cost(energy: Array, mu: Array) -> None:
    """Print the time of the fine search for frames (N, M) on shared energies (M,) and on different energies."""
    e0, settings = float(np.median(normalise(energy, mu).e0)), GlitchSettings()
    axes = energy + 1e-3 * np.arange(len(mu))[:, None]
    shared, alone, different = (
        time_call_ms(lambda e=e, y=y: find_glitches(e, y, e0, settings)) / len(y)
        for e, y in ((energy, mu), (energy, mu[:1]), (axes, mu))
    )
    print(
        f"fine search of frames of {len(energy)} points: {shared:.1f} ms a frame of {len(mu)}, {alone:.1f} ms alone, "
        f"{different:.1f} ms with different energies for each frame"
    )


def print_standards(folder: Path, noise: float, settings: GlitchSettings) -> None:
    total, best = Tally(), []
    for path in sorted(folder.glob("*.xdi")):
        for s in read_spectra(path):
            if flaw(s):
                continue
            rng = np.random.default_rng(0)
            normalised = normalise(s.energy, s.mu)
            e0, relative = float(normalised.e0[0]), s.energy - normalised.e0[0]
            sigma = np.hypot(estimate_noise(relative[None], normalised.flat)[0], noise)
            mu = normalised.flat + noise * rng.normal(size=(NOISY_COPIES, len(s.energy)))
            spoiled, inserted, size_sd = insert_glitches(mu, sigma, rng)
            glitches, seconds = time_search(s.energy, spoiled, e0, settings)
            clean = find_glitches(s.energy, mu, e0, settings)
            one = Tally()
            for tally in (one, total):
                tally.add(glitches, clean, inserted, size_sd, np.broadcast_to(np.abs(relative) < NEAR_EV, mu.shape))
            best.append((detectable_fraction(s.energy, mu, sigma, settings.threshold), len(s.energy)))
            print(f"{one.format(f'{path.stem} σ {sigma:.0e}', seconds)}  at best {100 * best[-1][0]:.1f} %")
    fractions, points = np.transpose(best)
    print(f"{total.format('all standards')}  at best {100 * np.average(fractions, weights=points):.1f} %")


def print_operando(folder: Path, noise: float, settings: GlitchSettings) -> None:
    with np.load(folder / "spectra.npz") as z:
        energy, mu = z["energy"].astype(float), z["norm"].astype(float)
    rng = np.random.default_rng(0)
    e0 = float(np.median(normalise(energy, mu).e0))
    sigma = np.hypot(estimate_noise((energy - e0)[None], mu), noise)[:, None]
    mu = mu + noise * rng.normal(size=mu.shape)
    spoiled, inserted, size_sd = insert_glitches(mu, sigma, rng)
    near, later = np.abs(energy - e0) < NEAR_EV, slice(settings.earlier_frames, None)
    for name, earlier in (("neighbours in energy", None), ("and earlier frames", mu[:0])):
        glitches, seconds = time_search(energy, spoiled, e0, settings, earlier=earlier)
        clean = find_glitches(energy, mu, e0, settings, earlier=earlier)
        tally = Tally()
        parts = [Glitches(g.found[later], g.size, g.sigma, g.mu, g.too_many) for g in (glitches, clean)]
        tally.add(parts[0], parts[1], inserted[later], size_sd[later], np.broadcast_to(near, mu[later].shape))
        print(tally.format(f"operando, {name}", seconds))


def simulate(frames: int = 40) -> tuple[Array, Array]:
    """Return energies (M,) in eV and μ (N, M) of the simulated beamline's Co K edge."""
    events: list[dict] = []
    SimBeamline(
        BeamlineSettings(frames=frames, frame_period_s=0), [lambda n, d: events.append(d) if n == "event" else None]
    ).run()
    data = [d["data"] for d in events if "It" in d["data"]]
    return np.asarray(data[0]["energy"]), np.stack([np.log(d["I0"] / d["It"]) for d in data])


def read_measured(folder: Path) -> Iterator[tuple[str, str, Array, Array]]:
    """Yield name, element, energies (M,) and μ (N, M) of the measured spectra that the shipped models cover."""
    for path in sorted((folder / "xdi").glob("*.xdi")):
        for s in read_spectra(path):
            if not flaw(s) and s.element in MODELS:
                yield path.stem, s.element, s.energy, np.repeat(s.mu[None], ESTIMATED_COPIES, axis=0)
    with np.load(folder / "operando_linio2" / "spectra.npz") as z:
        yield "operando", "Ni", z["energy"].astype(float), z["norm"].astype(float)


def estimate(model: Model, energy: Array, mu: Array, settings: GlitchSettings | None) -> list[Estimate | None]:
    """Return an estimate per spectrum, or None for a refused one."""
    aligned = align(
        Batch(energy, mu), model.grid, model.edge, AlignmentSettings(glitches=settings, gross_glitches=False)
    )
    estimates = model.estimate(aligned.mu)
    return [None if refusal else one for refusal, one in zip(aligned.refused, estimates, strict=True)]


def relative_changes(clean: list[Estimate | None], other: list[Estimate | None]) -> dict[str, list[float]]:
    """Return by descriptor the change of each mean, relative to the half-width of the interval without glitches.

    The wider half counts, because physical limits may cut off the other. The change is infinite if only ``other`` is
    refused.
    """
    changes: dict[str, list[float]] = {}
    for before, after in zip(clean, other, strict=True):
        for name, d in before.descriptors.items() if before else ():
            change = abs(after.descriptors[name].mean - d.mean) if after else np.inf
            changes.setdefault(name, []).append(change / max(d.hi - d.mean, d.mean - d.lo))
    return changes


def print_estimates(spectra: Iterable[tuple[str, str, Array, Array]], noise: float, settings: GlitchSettings) -> None:
    """Print the effect of glitches on estimates with and without repair, and of repair without glitches."""
    models = {element: Model(card.find(name)) for element, name in MODELS.items()}
    total: dict[str, dict[str, list[float]]] = {}
    for label, element, energy, mu in spectra:
        rng, model = np.random.default_rng(0), models[element]
        normalised = normalise(energy, mu)
        relative = (energy - normalised.e0[0])[None]
        sigma = np.hypot(estimate_noise(relative, normalised.flat), noise)[:, None]
        mu = normalised.flat + noise * rng.normal(size=mu.shape)
        spoiled, _, _ = insert_glitches(mu, sigma, rng)
        clean = estimate(model, energy, mu, None)
        others = {
            "repaired": estimate(model, energy, spoiled, settings),
            "unrepaired": estimate(model, energy, spoiled, None),
            "repair without glitches": estimate(model, energy, mu, settings),
        }
        by_kind = {kind: relative_changes(clean, other) for kind, other in others.items()}
        line = (
            f"{kind} {format_changes(np.concatenate([*changes.values(), []]))}" for kind, changes in by_kind.items()
        )
        print(f"{label:24s} means within the interval, glitches {', '.join(line)}")
        for kind, by_descriptor in by_kind.items():
            for name, changes in by_descriptor.items():
                total.setdefault(name, {}).setdefault(kind, []).extend(changes)
    for name, by_change in total.items():
        line = (f"{kind} {format_changes(np.array(changes))}" for kind, changes in by_change.items())
        print(f"all, {name:19s} means within the interval, glitches {', '.join(line)}")


def format_changes(changes: Array) -> str:
    """Format the fraction of changes within the interval and their 95 % quantile, in half-widths."""
    return f"{100 * (changes <= 1).mean():.1f} % ({np.quantile(changes, 0.95):.3f})" if changes.size else "–"


def print_theory(folder: Path, settings: GlitchSettings) -> None:
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as z:
            energies, mus = z["energy"].astype(float)[:100], z["mu"].astype(float)[:100]
        touched = [
            find_glitches(e, mu[None], float(normalise(e, mu).e0[0]), settings).found.mean()
            for e, mu in zip(energies, mus, strict=True)
        ]
        print(f"{path.stem}, FEFF without noise: {100 * np.mean(touched):.2f} % touched in {len(touched)} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--gross", action="store_true", help="only the search for gross glitches")
    parser.add_argument("--noise", type=float, default=0.003, help="added noise, in edge steps")
    parser.add_argument("--threshold", type=float, default=GlitchSettings().threshold, help="in σ")
    parser.add_argument("--narrowest", type=float, default=GlitchSettings().narrowest_ev, help="in eV")
    options = parser.parse_args()
    configure_torch(default_threads())
    if options.data is not None and not (options.data / "exp" / "xdi").is_dir():
        parser.error(f"{options.data} contains no folder exp/xdi")
    settings = GlitchSettings(threshold=options.threshold, narrowest_ev=options.narrowest)
    energy, mu = simulate()
    print_gross("simulated", {"simulated": (energy, mu)})
    print_cost(energy, mu)
    if options.data is not None:
        spectra = [s for path in sorted((options.data / "exp" / "xdi").glob("*.xdi")) for s in read_spectra(path)]
        good = {Path(s.source).stem: (s.energy, s.mu[None]) for s in spectra if not flaw(s)}
        print_gross(f"{len(good)} standards", good)
        with np.load(options.data / "exp" / "operando_linio2" / "spectra.npz") as z:
            print_gross("cathode", {"cathode": (z["energy"].astype(float), z["norm"].astype(float))})
    if options.gross:
        return
    print(f"{options.noise:g} edge steps of noise added, threshold {settings.threshold:g} σ")
    if options.data is not None:
        print_standards(options.data / "exp" / "xdi", options.noise, settings)
        print_operando(options.data / "exp" / "operando_linio2", options.noise, settings)
        print_theory(options.data / "feff", settings)
        print_estimates(read_measured(options.data / "exp"), options.noise, settings)
    print_estimates([("simulated", "Co", energy, mu)], options.noise, settings)


if __name__ == "__main__":
    main()
