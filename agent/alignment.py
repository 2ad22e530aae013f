"""Measured and computed spectra → the grid of a model, on one footing.

One procedure, used by training and by serving. A measured spectrum loses a pre-edge line, is flattened by
its post-edge curve and moved onto FEFF's energy scale; a FEFF row has none of these and continues as its tail
below its first energy. Both are then averaged over the bins of the grid and put on the grid's footing
(:meth:`Grid.footing`). Steps as in Athena (Ravel & Newville, J. Synchrotron Rad. 12, 537, 2005) and Larch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from .grid import Array, Grid, bin_means
from .settings import Settings

E0_STEP_EV = 0.2  # spacing on which the derivative is taken; the maximum is then refined by a parabola
FOIL_SEARCH_EV = (-15.0, 15.0)
FOIL_LEVELS_EV = np.array([-40.0, -8.0, 12.0, 40.0])  # below and above its E0: what a foil's edge rises between
FIRST_INFLECTION = 0.7  # of the largest: metals have two inflections of like height, and the table means the first

ROUNDING = 1e-9  # an edge step smaller than this part of the absorption is none

TAIL_POINTS = 12
MAX_ABSORPTION = 100.0  # of the normalised absorption: a white line has 5, a glitch some tens
MAX_TAIL_EV = 30.0  # a FEFF row that begins this far above the grid's foot has lost its edge

Refusal = tuple[str, str]
"""(reason, detail) why a spectrum must be set aside."""


class AlignmentSettings(Settings):
    """How a measured spectrum is normalised. Windows are in eV relative to the tabulated edge."""

    pre_edge_ev: tuple[float, float] = (-150.0, -18.0)
    """Window of the pre-edge line; what the scan does not reach is left out."""
    post_edge_ev: tuple[float, float] = (40.0, 600.0)
    """Window of the post-edge curve; what the scan does not reach is left out."""
    post_edge_clear_ev: float = 150.0
    """Where a long scan's post-edge window begins: it needs no help from the XANES oscillations, which would pull
    the curve. A shorter scan's begins at 0.3 of its reach above the edge, but not below the window."""
    e0_search_ev: tuple[float, float] = (-12.0, 28.0)
    """Where E0, the maximum of the smoothed derivative, is looked for."""
    e0_smoothing_ev: float = 1.0
    """σ of the Gaussian that smooths the derivative."""
    max_extrapolation_ev: float = 3.0
    """How far the grid may reach beyond the measured energies, at either end."""
    max_gap_ev: float = 8.0
    """The widest gap between measured energies inside the grid."""
    min_step_to_noise: float = 8.0
    """An edge step of fewer σ of the noise than this is no edge."""
    min_points: int = 4
    """Fewest points in the pre-edge and in the post-edge window."""
    calibrate_on_reference: bool = True
    """Move each frame so that its reference foil's E0 stands at the tabulated edge."""
    usual_foil_shift_ev: float = 5.0
    """A larger shift is applied too, but flagged."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The absorber's edge and where the training data's energy scale stands; both are in the model card."""

    edge_ev: float
    """Tabulated absorption edge."""
    feff_minus_experiment_ev: float = 0.0
    """Added to calibrated energies to reach FEFF's scale; found from standards."""


@dataclass(frozen=True)
class Aligned:
    """N spectra on the grid, with every quantity that the alignment found."""

    mu: NDArray[np.float32]
    """(N, G) on the common footing; a refused row is not to be used."""
    quantities: Mapping[str, Array]
    """Each (N,).

    ``e0_ev`` calibrated, experimental scale; ``edge_step`` of the measured μ; ``noise`` σ per point relative
    to the edge step; ``energy_shift_ev`` all that was added to the energies; ``foil_shift_ev`` the foil's part
    of it; ``pre_edge_slope`` per eV; ``post_edge_order`` of the polynomial; ``extrapolated_ev`` how far the
    grid reaches beyond the data.
    """
    refused: tuple[Refusal | None, ...]
    flags: tuple[tuple[str, ...], ...]
    """Per spectrum, what a reader must know: ``no foil edge``, ``large foil shift``."""


def align(
    energy: Array,
    mu: Array,
    grid: Grid,
    edge: Edge,
    settings: AlignmentSettings,
    *,
    normalised: bool = False,
    reference: Array | None = None,
) -> Aligned:
    """Align measured spectra that share their number of points.

    Parameters
    ----------
    energy : (M,) or (N, M) eV, strictly rising, the monochromator's scale
    mu : (N, M) dimensionless
    normalised : pre-edge already at 0 and post-edge at 1, so that no line is fitted
    reference : (N, M) absorption of a foil of the same element measured at the same time, or None
    """
    relative = np.atleast_2d(energy) - edge.edge_ev  # (1, M) where all share their energies
    foil_shift, flags = np.zeros((len(mu), 1)), ((),) * len(mu)
    if reference is not None and settings.calibrate_on_reference:
        foil_shift, flags = _foil_shift(relative, reference, settings)
    e0 = find_e0(relative, mu, settings.e0_smoothing_ev, settings.e0_search_ev)[:, None]

    if normalised:
        flat, step = mu, np.ones(len(mu))
        fit = {"pre_edge_slope": np.zeros(len(mu)), "post_edge_order": np.zeros(len(mu))}
    else:
        flat, step, fit = _normalise(relative, mu, e0, settings)
    noise = _noise(relative, flat)

    # Moving the grid instead of the energies leaves one energy axis for the whole batch.
    shift = foil_shift + edge.feff_minus_experiment_ev
    on_grid = bin_means(relative, flat, grid.bounds - shift)
    foot, anchor = grid.levels(on_grid)
    low, high = (relative[:, :1] + shift)[:, 0], (relative[:, -1:] + shift)[:, 0]
    quantities = {
        "e0_ev": (e0 + foil_shift)[:, 0] + edge.edge_ev,
        "edge_step": step,
        "noise": noise,
        "energy_shift_ev": shift[:, 0],
        "foil_shift_ev": foil_shift[:, 0],
        **fit,
        "extrapolated_ev": np.maximum(np.maximum(low - grid.energy[0], grid.energy[-1] - high), 0.0),
    }
    rounding = ROUNDING * np.abs(mu).max(axis=1)
    found = _Found(relative, low, high, step, noise, (anchor - foot) * step, rounding, normalised)
    aligned, refused = _footed(grid, on_grid, list(_refusals(found, grid, settings)))
    return Aligned(aligned, quantities, refused, flags)


def _foil_shift(
    relative: Array, reference: Array, settings: AlignmentSettings
) -> tuple[Array, tuple[tuple[str, ...], ...]]:
    """What moves each foil's E0 to the table, (N, 1) eV; 0 and a flag where the reference shows no edge."""
    e0 = find_e0(relative, reference, settings.e0_smoothing_ev, FOIL_SEARCH_EV, first=True)
    levels = bin_means(relative, reference, np.where(np.isnan(e0), 0.0, e0)[:, None] + FOIL_LEVELS_EV)
    rise = levels[:, 2] - levels[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        seen = ~np.isnan(e0) & (rise > settings.min_step_to_noise * _noise(relative, reference))
    shift = np.where(seen, -e0, 0.0)
    large = np.abs(shift) > settings.usual_foil_shift_ev
    flags = tuple(
        () if s and not far else ("large foil shift",) if s else ("no foil edge",)
        for s, far in zip(seen.tolist(), large.tolist(), strict=True)
    )
    return shift[:, None], flags


def _footed(
    grid: Grid, on_grid: Array, refused: list[Refusal | None]
) -> tuple[NDArray[np.float32], tuple[Refusal | None, ...]]:
    """The common footing. What has no edge to divide by, or a point that no absorption has, is refused and 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        footed = grid.footing(on_grid)
        absurd = ~(np.abs(footed) < MAX_ABSORPTION).all(axis=1)
    for i in np.flatnonzero(absurd):
        refused[i] = refused[i] or ("not an absorption spectrum", f"a point beyond {MAX_ABSORPTION:g} edge steps")
    footed[absurd] = 0.0
    return footed.astype(np.float32), tuple(refused)


def align_theory(energy: Array, mu: Array, grid: Grid, edge_ev: float) -> Aligned:
    """Put FEFF rows (N, M), on FEFF's own energies (N, M) or (M,) eV, onto the grid and its footing.

    No line is fitted: FEFF has already divided by its atomic background. Below its first energy a row goes on
    as its tail (:func:`with_tail`). A row that ends more than one grid step before the grid is refused.
    """
    energy, tailed = with_tail(np.broadcast_to(energy - edge_ev, mu.shape), mu, grid.bounds[0])
    on_grid = bin_means(energy, tailed, grid.bounds)
    e0 = find_e0(energy, tailed, E0_STEP_EV, (grid.energy[0], grid.anchor_ev[0]))
    zero = np.zeros(len(mu))
    short = np.maximum(grid.energy[-1] - energy[:, -1], 0.0)
    late = energy[:, TAIL_POINTS] - grid.foot_ev[1]
    refused: list[Refusal | None] = [None] * len(mu)
    for i in np.flatnonzero((short > grid.step_ev) | (late > MAX_TAIL_EV)):
        covered = f"{energy[i, TAIL_POINTS] + edge_ev:.1f}…{energy[i, -1] + edge_ev:.1f} eV"
        needed = f"{grid.foot_ev[1] + MAX_TAIL_EV + edge_ev:.1f}…{grid.energy[-1] + edge_ev:.1f} eV"
        refused[i] = ("does not cover the grid", f"computed {covered}, needed at least {needed}")
    quantities = {
        "e0_ev": e0 + edge_ev,
        "edge_step": np.ones(len(mu)),
        "noise": _noise(energy[:, TAIL_POINTS:], mu),
        "energy_shift_ev": zero,
        "foil_shift_ev": zero,
        "pre_edge_slope": zero,
        "post_edge_order": zero,
        "extrapolated_ev": short,
    }
    aligned, why = _footed(grid, on_grid, refused)
    return Aligned(aligned, quantities, why, ((),) * len(mu))


def with_tail(energy: Array, mu: Array, start_ev: float) -> tuple[Array, Array]:
    """Continue FEFF rows below their first energy as the tail of a Lorentzian edge.

    A core level of finite lifetime leaves μ ∝ 1/(E₁ − E) below its edge, so each row goes on as
    ``μ₀ D / (D + E₀ − E)`` with D = μ₀/μ₀′ from its own first points: value and slope are continuous.

    Parameters
    ----------
    energy, mu : (N, M) eV and dimensionless
    start_ev : where the tail begins, on the same scale as ``energy``

    Returns
    -------
    energy, mu : (N, TAIL_POINTS + M)
    """
    first = energy[:, :1]
    rise = (mu[:, 3:4] - mu[:, :1]) / (energy[:, 3:4] - first)
    reach = np.clip(mu[:, :1] / np.maximum(rise, 1e-6), 1.0, 30.0)
    span = np.maximum(first - start_ev, 1.0) + 1.0
    tail = first - span * np.linspace(1.0, 0.0, TAIL_POINTS, endpoint=False)
    level = mu[:, :1] * reach / (reach + first - tail)
    return np.concatenate([tail, energy], axis=1), np.concatenate([level, mu], axis=1)


def find_e0(
    energy: Array, mu: Array, smoothing_ev: float, search_ev: tuple[float, float], first: bool = False
) -> Array:
    """E0 of (N, M) spectra: the maximum of the smoothed derivative, (N,), on the scale of ``energy``.

    ``first`` takes the lowest local maximum that is nearly as high as the highest, as tables do for metals.
    NaN where there is no maximum inside the search window.
    """
    bounds, centres, derivative = _derivative(smoothing_ev, search_ev)
    d = bin_means(energy, mu, bounds) @ derivative
    peak = (d[:, 1:-1] >= d[:, :-2]) & (d[:, 1:-1] > d[:, 2:]) & (d[:, 1:-1] > 0)
    height = np.where(peak, d[:, 1:-1], -np.inf)
    if first:
        i = np.argmax(height >= FIRST_INFLECTION * height.max(axis=1, keepdims=True), axis=1) + 1
    else:
        i = height.argmax(axis=1) + 1
    row = np.arange(len(d))
    left, mid, right = d[row, i - 1], d[row, i], d[row, i + 1]
    curve = left - 2 * mid + right
    shift = np.divide(left - right, 2 * curve, out=np.zeros(len(d)), where=curve < 0)
    return np.where(peak.any(axis=1), centres[i] + shift * E0_STEP_EV, np.nan)


@lru_cache(maxsize=16)
def _derivative(smoothing_ev: float, search_ev: tuple[float, float]) -> tuple[Array, Array, Array]:
    """Bins around the search window; the energies, one beyond it at either end, where the derivative is taken;
    and the matrix that takes bin means to the Gaussian-smoothed derivative there."""
    bounds = np.arange(search_ev[0] - 5 * smoothing_ev, search_ev[1] + 5 * smoothing_ev, E0_STEP_EV)
    centres = (bounds[1:] + bounds[:-1]) / 2
    inside = np.flatnonzero((centres >= search_ev[0]) & (centres <= search_ev[1]))
    kept = slice(inside[0] - 1, inside[-1] + 2)
    sigma = smoothing_ev / E0_STEP_EV
    matrix = gaussian_filter1d(np.eye(len(centres)), sigma, axis=1, order=1, mode="nearest")
    return bounds, centres[kept], matrix[:, kept]


def _normalise(
    relative: Array, mu: Array, e0: Array, settings: AlignmentSettings
) -> tuple[Array, Array, dict[str, Array]]:
    """Subtract the pre-edge line, divide by the edge step, flatten above E0 (as Larch's ``flat``)."""
    first, last = settings.post_edge_ev
    pre_mask = _within(relative, settings.pre_edge_ev)
    clear = np.clip(0.3 * relative[:, -1:], first, max(first, settings.post_edge_clear_ev))
    post_mask = _within(relative, (clear, last))
    pre_order = np.where(_span(relative, pre_mask) >= 40, 1, 0)
    span = _span(relative, post_mask)
    # A higher order on a shorter scan would follow the EXAFS instead of the background.
    post_order = np.minimum(np.select([span >= 300, span >= 150], [2, 1], 0), post_mask.sum(axis=1) - 1).clip(0)
    at = np.where(np.isnan(e0), 0.0, e0)
    pre, pre_at_e0, pre_slope = _polynomial(relative, mu, pre_mask, pre_order, at)
    post, post_at_e0, _ = _polynomial(relative, mu, post_mask, post_order, at)
    step = post_at_e0 - pre_at_e0
    safe = np.where(np.abs(step) > 1e-12, step, 1e-12)
    flat = np.where(relative > at, mu - post + step, mu - pre) / safe
    order = np.broadcast_to(post_order.astype(float), len(mu))
    return (
        flat,
        step[:, 0],
        {"pre_edge_slope": np.broadcast_to(pre_slope[:, 0], len(mu)), "post_edge_order": order},
    )


def _polynomial(
    x: Array, y: Array, mask: NDArray[np.bool_], order: NDArray[np.int_], at: Array
) -> tuple[Array, Array, Array]:
    """Least squares of each row's order through its masked points.

    x, mask (1 or N, M); y (N, M); order (1 or N,); at (N, 1). Gives the polynomial at x (N, M), at ``at`` and
    its slope there, (N, 1) each.
    """
    u, v = x / 100.0, at / 100.0  # near 1, so that the normal equations are well conditioned
    power = np.arange(3)
    left_out = power > order[:, None]
    basis = np.stack([np.ones_like(u), u, u * u], axis=-1) * ~left_out[:, None, :]
    weighted = basis * mask[..., None]
    normal = weighted.swapaxes(1, 2) @ basis
    # A unit diagonal stands in for terms left out, and for a window without points.
    normal += np.eye(3) * (left_out | ~np.any(mask, axis=1, keepdims=True))[:, None, :]
    c = (np.linalg.inv(normal) @ (weighted.swapaxes(1, 2) @ y[..., None]))[..., 0]
    values = c @ basis[0].T if len(basis) == 1 else (basis @ c[..., None])[..., 0]
    c0, c1, c2 = c[:, :1], c[:, 1:2], c[:, 2:]
    return values, c0 + c1 * v + c2 * v * v, (c1 + 2 * c2 * v) / 100.0


def _noise(relative: Array, flat: Array) -> Array:
    """σ per point, (N,), from how far each point stands off the line between its neighbours (median).

    Taken below the edge where there are points enough, since structure above it would count as noise.
    """
    use = np.flatnonzero((relative[:, 1:-1] < -8.0).all(axis=0))
    use = (use if len(use) >= 8 else np.arange(relative.shape[1] - 2)) + 1
    left, mid, right = relative[:, use - 1], relative[:, use], relative[:, use + 1]
    w = (mid - left) / (right - left)
    off = flat[:, use] - (1 - w) * flat[:, use - 1] - w * flat[:, use + 1]
    return np.median(np.abs(off) / np.sqrt(1 + w**2 + (1 - w) ** 2), axis=1) * 1.4826


def _within(relative: Array, window: tuple[float | Array, float]) -> NDArray[np.bool_]:
    return (relative >= window[0]) & (relative <= window[1])


def _span(relative: Array, mask: NDArray[np.bool_]) -> Array:
    high = np.where(mask, relative, -np.inf).max(axis=1)
    low = np.where(mask, relative, np.inf).min(axis=1)
    return np.where(mask.any(axis=1), high - low, 0.0)


@dataclass(frozen=True, slots=True)
class _Found:
    relative: Array
    """(1 or N, M)"""
    low: Array
    high: Array
    """First and last measured energy on FEFF's scale; one for all, or one each."""
    step: Array
    noise: Array
    rise: Array
    """Anchor minus foot on the grid, in the unit of μ."""
    rounding: Array
    """What numbers of this size may differ by without having been measured to, in the unit of μ."""
    normalised: bool


def _refusals(found: _Found, grid: Grid, settings: AlignmentSettings) -> tuple[Refusal | None, ...]:
    """The first reason that applies to each spectrum, or None."""
    limit, lo, hi = settings.max_extrapolation_ev, grid.energy[0], grid.energy[-1]
    low, high, gap, pre, post = np.broadcast_arrays(
        found.low,
        found.high,
        np.where(_within(found.relative, (lo, hi))[:, 1:], np.diff(found.relative), 0).max(axis=1),
        _within(found.relative, settings.pre_edge_ev).sum(axis=1),
        _within(found.relative, settings.post_edge_ev).sum(axis=1),
        found.step,
    )[:5]
    needed = 0 if found.normalised else settings.min_points
    sigma = found.noise * np.abs(found.step)
    least = np.maximum(settings.min_step_to_noise * sigma, found.rounding)  # a detector that is stuck has no noise
    no_edge = ~(np.minimum(found.rise, found.step) > least)
    bad = (low - lo > limit) | (hi - high > limit) | (gap > settings.max_gap_ev) | (pre < needed) | (post < needed)
    refused: list[Refusal | None] = [None] * len(sigma)
    for i in np.flatnonzero(bad | no_edge):
        if low[i] - lo > limit or hi - high[i] > limit:
            refused[i] = (
                "does not cover the grid",
                f"measured {low[i]:.1f}…{high[i]:.1f} eV from the tabulated edge on FEFF's scale, "
                f"needed {lo:.1f}…{hi:.1f} eV within {limit:g} eV",
            )
        elif gap[i] > settings.max_gap_ev:
            refused[i] = (
                "gap in the energies",
                f"{gap[i]:.1f} eV between two points, at most {settings.max_gap_ev:g}",
            )
        elif pre[i] < needed:
            refused[i] = "no pre-edge", f"{pre[i]} points in {settings.pre_edge_ev} eV, needed {needed}"
        elif post[i] < needed:
            refused[i] = "no post-edge", f"{post[i]} points in {settings.post_edge_ev} eV, needed {needed}"
        else:
            refused[i] = (
                "edge step within noise",
                f"edge step {found.step[i]:.3g} with noise σ {sigma[i]:.3g}, needed {settings.min_step_to_noise:g} σ",
            )
    return tuple(refused)
