"""Judge models on simulated charges of layered cathodes: FEFF spectra, disturbed as measured spectra are.

    python benchmarks/as_measured.py DATA [MODEL ...]

DATA contains the folder feff. Models are names or folders; the default is co-k and ni-k. There are two kinds of
charge. ``ordering``: the second Li ordering (rows of split ``sim``, not used in training), averaged over the sites
and interpolated between neighbouring compositions. ``two sites``: every row of a discharged layered structure
(for Ni, Jahn-Teller distorted ones too) mixed with every row of a charged one. Training uses these rows, but not all
of their mixtures.

All spectra of a charge are broadened, damped, stretched and shifted by the same random amounts, with the means and
standard deviations of the model's card. Noise of 0.4 % of the edge step is added to each, and one smooth curve of
2.6 % to all: the misfit between FEFF and Ni(OH)2 after all of these are fitted (``xas-agent calibrate``). The
benchmark compares the mean oxidation state with 4 − x and prints over all charges: the mean rank correlation, Pearson
correlation (and its first decile), error and slope, the median error of estimates rescaled to the true ends, and the
root mean square distance of 4 − x from its own line through the estimates.
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
from xas_agent.models.training import FeffData, TrainingConfig, config_of, load_sets
from xas_agent.models.training.augment import damped, shifted, stretched
from xas_agent.models.training.rows import FINE_EV, fine_bins

DRAWS, STEPS, NOISE_EDGE_STEPS = 60, 21, 0.004
MISFIT_RMS_EDGE_STEPS, MISFIT_SMOOTHING_EV = 0.026, 2.0
LAYERED = "layered"

Charge = tuple[Array, Tensor]
"""Mean oxidation states (STEPS,) and fine spectra (STEPS, F)."""


def ordering(data: FeffData, config: TrainingConfig) -> Iterator[Charge]:
    """Yield the charge through the second Li ordering."""
    data = data.rows((data.split == "sim") & ~np.isnan(data.labels["OS_mean"]))
    if not len(data):
        return
    fine, state = fine_bins(data, config), data.labels["OS_mean"].round(4)
    known = np.unique(state)
    mean = torch.stack([fine[state == s].mean(0) for s in known])
    states = np.linspace(known[0], known[-1], STEPS)
    upper = np.clip(np.searchsorted(known, states), 1, len(known) - 1)
    share = (states - known[upper - 1]) / (known[upper] - known[upper - 1])
    yield states, mix(mean[upper - 1], mean[upper], share)


def two_sites(data: FeffData, config: TrainingConfig) -> Iterator[Charge]:
    """Yield a charge from every discharged layered row to every charged one."""
    known = ~np.isnan(data.labels["OS_mean"])
    data = data.rows((data.kind == LAYERED) & np.isin(data.split, ["train", "val"]) & known)
    if not len(data):
        return
    fine, state = fine_bins(data, config), data.labels["OS_mean"]
    share = np.linspace(0, 1, STEPS)
    for low in fine[state == state.min()]:
        for high in fine[state == state.max()]:
            yield state.min() + share * np.ptp(state), mix(low, high, share)


def mix(low: Tensor, high: Tensor, share: Array) -> Tensor:
    """Return (STEPS, F) mixtures with a fraction ``share`` (STEPS,) of ``high``."""
    high_share = torch.tensor(share, dtype=torch.float32)[:, None]
    return (1 - high_share) * low + high_share * high


def disturb(model: Model, fine: Tensor, draw: np.random.Generator) -> NDArray[np.float32]:
    """Return aligned spectra (STEPS, G), disturbed as measured spectra are, on the model's grid."""
    domain, ones = model.card.domain, torch.ones(len(fine), 1)

    def deviation(sd: float) -> Tensor:
        return ones * float(sd * draw.standard_normal())

    broadening = (domain.broadening_ev + deviation(domain.broadening_sd_ev)).clamp_min(0)
    spectra = shifted(fine, FINE_EV, deviation(model.edge.offset_sd_ev), broadening)
    spectra = damped(spectra, FINE_EV, domain.amplitude + deviation(domain.amplitude_sd))
    start_ev = float(model.grid.bounds[0]) + FINE_EV / 2
    spectra = stretched(spectra, start_ev, FINE_EV, 1 + deviation(domain.scale_sd))
    footed = model.grid.footing(spectra.reshape(len(fine), len(model.grid), -1).mean(2).double().numpy())
    misfit = gaussian_filter1d(draw.standard_normal(len(model.grid)), MISFIT_SMOOTHING_EV / model.grid.step_ev)
    footed = model.grid.footing(footed * (1 + MISFIT_RMS_EDGE_STEPS * misfit / np.sqrt(np.mean(misfit**2))))
    aligned = model.edge.scale_structure(footed, model.grid, 1 / model.edge.amplitude)
    return (aligned + NOISE_EDGE_STEPS * draw.standard_normal(aligned.shape)).astype(np.float32)


def score(model: Model, charge: Charge, draw: np.random.Generator) -> Array:
    """Return rank and Pearson correlation, error, error after rescaling to the true ends, slope and scatter."""
    truth, fine = charge
    os = np.array([e.descriptors["OS"].mean for e in model.estimate(disturb(model, fine, draw))])
    rescaled = truth[0] + (os - os[0]) * (truth[-1] - truth[0]) / (os[-1] - os[0])
    errors = np.abs(os - truth).mean(), np.abs(rescaled - truth).mean()
    scatter = (truth - np.polyval(np.polyfit(os, truth, 1), os)).std(ddof=2)
    return np.array([spearmanr(os, truth)[0], pearsonr(os, truth)[0], *errors, np.polyfit(truth, os, 1)[0], scatter])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", default=["co-k", "ni-k"], metavar="MODEL")
    options = parser.parse_args()
    if not (options.data / "feff").is_dir():
        parser.error(f"{options.data} contains no folder feff")
    for name in options.models:
        model = Model(cards.find(name))
        config = config_of(model.card)
        data = load_sets(options.data / "feff", config.datasets, ("OS",))
        for kind, charges in (("ordering", ordering), ("two sites", two_sites)):
            draw = np.random.default_rng(0)
            all_charges = list(charges(data, config))
            if not all_charges:
                print(f"{name}, {kind}: {config.dataset} has no rows of this kind")
                continue
            scores = np.array(
                [score(model, c, draw) for c in all_charges for _ in range(-(-DRAWS // len(all_charges)))]
            )
            rank, pearson, mae, _, slope, _ = scores.mean(axis=0)
            scatter = np.sqrt(np.mean(scores[:, 5] ** 2))
            first_decile, rescaled_mae = np.quantile(scores[:, 1], 0.1), np.median(scores[:, 3])
            print(
                f"{name}, {kind}: Spearman {rank:.3f}, Pearson {pearson:.4f} (one in ten below {first_decile:.3f}), "
                f"MAE {mae:.3f} e, rescaled to the true ends {rescaled_mae:.3f} e, "
                f"slope {slope:.2f} ± {scores[:, 4].std():.2f}, about its line ± {scatter:.3f} e"
            )


if __name__ == "__main__":
    main()
