"""Compare the trigger `change` with a CUSUM and a fixed threshold on simulated series.

    python benchmarks/change_point.py [--series 300] [--figure docs/assets/change_point.svg]

The series scatter with σ = 1 about a level that is unknown to the methods. The trigger is asked for at most one false
alarm in 1000 frames. The bars of the other methods are set by simulation to the rate of false alarms that the trigger
then shows, in series of 500 frames without a change; after an alarm every method begins anew. The CUSUM sums what the
frames exceed ± 0.5 σ by (Page, Biometrika 41, 100 (1954)), and the fixed threshold judges single frames; both know
level and σ by the first 20 frames only. A second CUSUM is given both, as no experiment is: it shows the cost of not
knowing them. The rate of false alarms is also printed for scatter that is not independent or not Gaussian, for which
the trigger states nothing.

After 60 frames the level changes, by a step, or by a ramp over 50 frames to the same size. The benchmark prints, by
size: the mean delay in frames of the alarms that came within 100 frames (1: at the first frame that changes), the
share of series without such an alarm, and the share with an alarm before the change, which are counted in neither.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from scipy.signal import lfilter

from xas_agent.agent.decide.observed import SeriesPoint
from xas_agent.agent.decide.triggers.change import Change, ChangeWatch
from xas_agent.agent.types import Array

STATED_FRAMES = 1000
"""Mean number of frames between false alarms that the trigger is asked for."""
LEARNED_FRAMES = 20
SLACK_SD = 0.5
QUIET_FRAMES, WATCHED_FRAMES, RAMP_FRAMES = 60, 100, 50
SIZES_SD = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
SHAPES = ("step", "ramp")
LONG_FRAMES = 500
FIGURE = Path(__file__).parents[1] / "docs" / "assets" / "change_point.svg"

Alarms = NDArray[np.bool_]
"""Whether a method alarms: (N, M) for N series of M frames."""
Method = Callable[[Array], Alarms]


def trigger(series: Array) -> Alarms:
    """Return the alarms of the trigger in series (N, M)."""
    settings = Change(quantity="OS", false_alarm_frames=STATED_FRAMES)
    alarms = np.zeros(series.shape, bool)
    for row, values in enumerate(series):
        watch = ChangeWatch(settings)
        for n, value in enumerate(values):
            watch.add(SeriesPoint("", float(n), float(value), 0.0))
            alarms[row, n] = watch.holds
    return alarms


def chart(series: Array, bar: float, *, sums: bool, learned: int) -> Alarms:
    """Return the alarms of a two-sided CUSUM in series (N, M) or, if it does not sum, of a fixed threshold.

    Parameters
    ----------
    learned : number of frames that give level and scatter; 0 if these are known to be 0 and 1
    """
    slack = SLACK_SD if sums else 0.0
    alarms = np.zeros(series.shape, bool)
    seen, total, squares, up, down = np.zeros((5, len(series)))
    for n, value in enumerate(series.T):
        learns = seen < learned
        seen += 1
        total += np.where(learns, value, 0.0)
        squares += np.where(learns, value**2, 0.0)
        z = value
        if learned:
            mean = total / learned
            variance = np.where(learns, 1.0, (squares - learned * mean**2) / (learned - 1))
            z = np.where(learns, 0.0, (value - mean) / np.sqrt(variance))
        up = np.maximum(sums * up + z - slack, 0.0)
        down = np.maximum(sums * down - z - slack, 0.0)
        alarms[:, n] = np.maximum(up, down) > bar
        for state in (seen, total, squares, up, down):
            state[alarms[:, n]] = 0.0
    return alarms


def frames_between(alarms: Alarms) -> float:
    """Return the mean number of frames between alarms."""
    return alarms.size / max(int(alarms.sum()), 1)


def calibrated(method: Callable[..., Alarms], series: Array, frames: float) -> float:
    """Return the bar at which a method alarms once in ``frames`` frames of series without a change."""
    low, high = 0.0, 50.0
    for _ in range(16):
        bar = (low + high) / 2
        low, high = (bar, high) if frames_between(method(series, bar)) < frames else (low, bar)
    return high


def changed(shape: str, size_sd: float, count: int, random: np.random.Generator) -> Array:
    """Return series (count, M) that change after ``QUIET_FRAMES``."""
    frame = np.arange(QUIET_FRAMES + WATCHED_FRAMES) - QUIET_FRAMES + 1  # 1 at the first that changes
    rise = np.clip(frame / (RAMP_FRAMES if shape == "ramp" else 1), 0.0, 1.0)
    return random.standard_normal((count, len(frame))) + size_sd * rise


@dataclass(frozen=True)
class Result:
    """What a method does in series that change."""

    delay: float
    """Mean number of frames until the alarm; NaN if there is none."""
    missed: float
    """Share of the series without a false alarm in which the change is not found."""
    false: float
    """Share of series with an alarm before the change."""

    @classmethod
    def of(cls, alarms: Alarms) -> "Result":
        early = alarms[:, :QUIET_FRAMES].any(axis=1)
        after = alarms[~early, QUIET_FRAMES:]
        found = after.any(axis=1)
        delays = after[found].argmax(axis=1) + 1
        return cls(float(delays.mean()) if found.any() else np.nan, 1 - float(found.mean()), float(early.mean()))


def other_scatter(count: int, random: np.random.Generator) -> dict[str, Array]:
    """Return series (count, M) without a change whose scatter breaks an assumption of the trigger, by its name."""
    white = random.standard_normal((count, LONG_FRAMES))
    return {
        "neighbours correlated by 0.3": np.asarray(lfilter([np.sqrt(1 - 0.3**2)], [1, -0.3], white)),
        "Student's t with 4 degrees of freedom": random.standard_t(4, white.shape),
        "values in steps of 1 σ": np.round(white),
        "values in steps of 4 σ": np.round(white / 4),
    }


def results(methods: dict[str, Method], count: int) -> Iterator[tuple[str, float, str, Result]]:
    """Yield shape, size, method and result."""
    for shape in SHAPES:
        for size in SIZES_SD:
            series = changed(shape, size, count, np.random.default_rng([1, SHAPES.index(shape), int(10 * size)]))
            for name, method in methods.items():
                yield shape, size, name, Result.of(method(series))


def draw(path: Path, found: list[tuple[str, float, str, Result]], methods: list[str]) -> None:
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes: list[list[Axes]] = figure.subplots(2, 2, sharex=True, sharey="row").tolist()
    for column, shape in enumerate(SHAPES):
        delay, missed = axes[0][column], axes[1][column]
        for name, marker in zip(methods, "os^x", strict=True):
            of = [(size, r) for s, size, n, r in found if (s, n) == (shape, name)]
            look = {
                "marker": marker,
                "ls": ":" if "known" in name else "-",
                "color": "grey" if "known" in name else None,
            }
            delay.plot([size for size, _ in of], [r.delay for _, r in of], label=name, **look)
            missed.plot([size for size, _ in of], [r.missed for _, r in of], **look)
        delay.set_title("step" if shape == "step" else f"ramp over {RAMP_FRAMES} frames")
        missed.set_xlabel("size of the change / σ")
    axes[0][0].set(ylabel="mean delay / frames", ylim=(0, None))
    axes[1][0].set(ylabel=f"not found in {WATCHED_FRAMES} frames", ylim=(-0.03, 1))
    axes[1][0].yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[0][0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=300, help="series for each shape and size")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()

    quiet = np.random.default_rng(0).standard_normal((4 * options.series, LONG_FRAMES))
    began = time.process_time()
    alarms = trigger(quiet)
    milliseconds = 1e3 * (time.process_time() - began) / quiet.size
    frames = frames_between(alarms)
    print(
        f"change: {frames:.0f} frames between false alarms ({alarms.sum()} in {quiet.size}; at least {STATED_FRAMES} "
        f"stated), {milliseconds:.3f} ms of processor time per frame"
    )

    for name, series in other_scatter(options.series // 3, np.random.default_rng(3)).items():
        print(f"change, {name}: {frames_between(trigger(series)):.0f} frames between false alarms")

    charts: dict[str, Callable[..., Alarms]] = {
        "CUSUM": partial(chart, sums=True, learned=LEARNED_FRAMES),
        "fixed threshold": partial(chart, sums=False, learned=LEARNED_FRAMES),
        "CUSUM, level and σ known": partial(chart, sums=True, learned=0),
    }
    methods: dict[str, Method] = {"change": trigger}
    many = np.random.default_rng(2).standard_normal((4000, LONG_FRAMES))
    for name, method in charts.items():
        bar = calibrated(method, many, frames)
        methods[name] = partial(method, bar=bar)
        print(f"{name}: bar {bar:.2f} σ, {frames_between(method(quiet, bar)):.0f} frames between false alarms")

    print(f"\n{options.series} series each: delay / not found / alarm before the change")
    print(f"{'':14s}" + "".join(f"{name:>28s}" for name in methods))
    found: list[tuple[str, float, str, Result]] = []
    for shape, size, name, result in results(methods, options.series):
        if name == "change":
            print(f"{shape} {size:.1f} σ".ljust(14), end="")
        found.append((shape, size, name, result))
        text = f"{result.delay:.1f} / {result.missed:.0%} / {result.false:.0%}"
        print(f"{text:>28s}", end="\n" if name == [*methods][-1] else "", flush=True)
    draw(options.figure, found, [*methods])


if __name__ == "__main__":
    main()
