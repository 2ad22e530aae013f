"""What models say along charges of layered cathodes that are made of FEFF rows, disturbed as measured spectra are.

    python benchmarks/as_measured.py DATA [MODEL ...]

DATA holds feff; models are names or folders, co-k and ni-k unless given. There are two kinds of charge. ``ordering``:
the second Li ordering, rows of split ``sim``, never trained on, averaged over their sites and mixed between
neighbouring compositions. ``two sites``: every row of a discharged layered structure, for Ni Jahn-Teller distorted
ones too, mixed with every row of a charged one; those rows are trained on, not all of their mixtures.

Each charge is broadened, damped, stretched and shifted as the model's card says measured spectra are, by random
amounts of its σ, all its spectra by the same, and gets noise of 0.4 % of the edge step and one smooth curve of 2.6 %:
what FEFF leaves of Ni(OH)2 once all that is fitted (``xas-agent calibrate``). Printed are means over such charges of
the mean oxidation state against 4 − x: rank correlation, Pearson's correlation, mean error, its median after both
ends are set right, and the slope.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from xas_agent.agent.types import Array
from xas_agent.models import card as cards
from xas_agent.models.runtime import Model
from xas_agent.models.training import FeffData, TrainingConfig, config_of, load_feff
from xas_agent.models.training.augment import damped, shifted, stretched
from xas_agent.models.training.rows import FINE_EV, fine_bins

DRAWS, STEPS, NOISE = 60, 21, 0.004
MISFIT, MISFIT_EV = 0.026, 2.0  # RMS in edge steps, and σ of the Gaussian that smooths it
LAYERED = "layered"

Charge = tuple[Array, Tensor]
"""Mean oxidation states (STEPS,) and fine spectra (STEPS, F)."""


def ordering(data: FeffData, config: TrainingConfig) -> Iterator[Charge]:
    """The one charge through the second Li ordering."""
    data = data.rows((data.split == "sim") & ~np.isnan(data.labels["OS_mean"]))
    if not len(data):
        return
    fine, state = fine_bins(data, config), data.labels["OS_mean"].round(4)
    known = np.unique(state)
    mean = torch.stack([fine[state == s].mean(0) for s in known])
    wanted = np.linspace(known[0], known[-1], STEPS)
    upper = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
    share = (wanted - known[upper - 1]) / (known[upper] - known[upper - 1])
    yield wanted, mixed(mean[upper - 1], mean[upper], share)


def two_sites(data: FeffData, config: TrainingConfig) -> Iterator[Charge]:
    """Charges from every discharged layered row to every charged one."""
    known = ~np.isnan(data.labels["OS_mean"])
    data = data.rows((data.kind == LAYERED) & np.isin(data.split, ["train", "val"]) & known)
    if not len(data):
        return
    fine, state = fine_bins(data, config), data.labels["OS_mean"]
    share = np.linspace(0, 1, STEPS)
    for low in fine[state == state.min()]:
        for high in fine[state == state.max()]:
            yield state.min() + share * np.ptp(state), mixed(low, high, share)


def mixed(low: Tensor, high: Tensor, share: Array) -> Tensor:
    """(STEPS, F) spectra, ``share`` (STEPS,) of each being ``high``."""
    of_high = torch.tensor(share, dtype=torch.float32)[:, None]
    return (1 - of_high) * low + of_high * high


def measured(model: Model, fine: Tensor, draw: np.random.Generator) -> NDArray[np.float32]:
    """(STEPS, G) as alignment would hand them on."""
    d, one = model.card.domain, torch.ones(len(fine), 1)

    def off(sd: float) -> Tensor:
        return one * float(sd * draw.standard_normal())

    broadening = (d.broadening_ev + off(d.broadening_sd_ev)).clamp_min(0)
    spectra = shifted(fine, FINE_EV, off(model.edge.offset_sd_ev), broadening)
    spectra = damped(spectra, FINE_EV, d.amplitude + off(d.amplitude_sd))
    start_ev = float(model.grid.bounds[0]) + FINE_EV / 2
    spectra = stretched(spectra, start_ev, FINE_EV, 1 + off(d.scale_sd))
    footed = model.grid.footing(spectra.reshape(len(fine), len(model.grid), -1).mean(2).double().numpy())
    misfit = gaussian_filter1d(draw.standard_normal(len(model.grid)), MISFIT_EV / model.grid.step_ev)
    footed = model.grid.footing(footed * (1 + MISFIT * misfit / np.sqrt(np.mean(misfit**2))))
    aligned = model.edge.scale_structure(footed, model.grid, 1 / model.edge.amplitude)
    return (aligned + NOISE * draw.standard_normal(aligned.shape)).astype(np.float32)


def figures(model: Model, charge: Charge, draw: np.random.Generator) -> Array:
    """Rank correlation, correlation, error, that after both ends are set right, slope."""
    truth, fine = charge
    os = np.array([e.descriptors["OS"].mean for e in model.estimate(measured(model, fine, draw))])
    ends = truth[0] + (os - os[0]) * (truth[-1] - truth[0]) / (os[-1] - os[0])
    errors = np.abs(os - truth).mean(), np.abs(ends - truth).mean()
    return np.array([spearmanr(os, truth)[0], pearsonr(os, truth)[0], *errors, np.polyfit(truth, os, 1)[0]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", default=["co-k", "ni-k"], metavar="MODEL")
    asked = parser.parse_args()
    if not (asked.data / "feff").is_dir():
        parser.error(f"{asked.data}: found no feff in it")
    for name in asked.models:
        model = Model(cards.find(name))
        config = config_of(model.card)
        data = load_feff(asked.data / "feff", config.dataset, ("OS",))
        for kind, charges in (("ordering", ordering), ("two sites", two_sites)):
            draw = np.random.default_rng(0)
            several = list(charges(data, config))
            if not several:
                print(f"{name}, {kind}: {config.dataset} has no rows of this kind")
                continue
            found = np.array([figures(model, c, draw) for c in several for _ in range(-(-DRAWS // len(several)))])
            rank, pearson, mae, _, slope = found.mean(axis=0)
            tenth, ends = np.quantile(found[:, 1], 0.1), np.median(found[:, 3])
            print(
                f"{name}, {kind}: Spearman {rank:.3f}, Pearson {pearson:.4f} (one in ten below {tenth:.3f}), "
                f"MAE {mae:.3f} e, ends set right {ends:.3f} e, slope {slope:.2f} ± {found[:, 4].std():.2f}"
            )


if __name__ == "__main__":
    main()
