"""What models say along the second Li ordering of their layered series, disturbed as measured spectra are.

    python benchmarks/as_measured.py DATA [MODEL ...]

DATA holds feff; models are names or folders, co-k and ni-k unless given. Rows of split `sim`, never trained on, are
averaged over their sites, mixed between neighbouring compositions, and broadened, damped, stretched and shifted as
the model's card says measured spectra are, each by a random amount within its σ (±1 eV of the offset), with noise of
0.4 % of the edge step. Printed are means over such series of the mean oxidation state against 4 − x: rank
correlation, Pearson's correlation, mean error, that after both ends are set right, and the slope.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from xas_agent.models import card as cards
from xas_agent.models.augment import damped, shifted, stretched
from xas_agent.models.data import load_feff
from xas_agent.models.plan import config_of
from xas_agent.models.runtime import Model
from xas_agent.models.training import FINE_EV, fine_bins

SERIES, STEPS, NOISE, SHIFT_EV = 24, 21, 0.004, 1.0


def charge(model: Model, folder: Path) -> tuple[NDArray[np.float64], Tensor]:
    """Mean oxidation states (STEPS,) and fine spectra (STEPS, F)."""
    config = config_of(model.card)
    data = load_feff(folder, config.dataset, ("OS",))
    data = data.rows(data.split == "sim")
    fine, state = fine_bins(data, config), data.labels["OS_mean"].round(4)
    known = np.unique(state)
    mean = torch.stack([fine[state == s].mean(0) for s in known])
    wanted = np.linspace(known[0], known[-1], STEPS)
    upper = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
    share = torch.tensor((wanted - known[upper - 1]) / (known[upper] - known[upper - 1]), dtype=torch.float32)[
        :, None
    ]
    return wanted, (1 - share) * mean[upper - 1] + share * mean[upper]


def measured(model: Model, fine: Tensor, generator: torch.Generator) -> NDArray[np.float32]:
    """(STEPS, G) as alignment would hand them on."""
    d, one = model.card.domain, torch.ones(len(fine), 1)

    def within(sd: float) -> Tensor:
        return one * sd * (2 * torch.rand(1, generator=generator) - 1)

    spectra = shifted(fine, FINE_EV, within(SHIFT_EV), d.broadening_ev + within(d.broadening_sd_ev))
    spectra = damped(spectra, FINE_EV, d.amplitude + within(d.amplitude_sd))
    start_ev = float(model.grid.bounds[0]) + FINE_EV / 2
    spectra = stretched(spectra, start_ev, FINE_EV, 1 + within(d.scale_sd))
    footed = model.grid.footing(spectra.reshape(len(fine), len(model.grid), -1).mean(2).double().numpy())
    aligned = model.edge.strengthened(footed, model.grid, 1 / model.edge.amplitude)
    return (aligned + NOISE * torch.randn(aligned.shape, generator=generator).numpy()).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", default=["co-k", "ni-k"], metavar="MODEL")
    asked = parser.parse_args()
    if not (asked.data / "feff").is_dir():
        parser.error(f"{asked.data}: found no feff in it")
    for name in asked.models:
        model, generator = Model(cards.find(name)), torch.Generator().manual_seed(0)
        truth, fine = charge(model, asked.data / "feff")
        found = []
        for _ in range(SERIES):
            said = [e.descriptors["OS"].mean for e in model.estimate(measured(model, fine, generator))]
            os = np.array(said)
            ends = truth[0] + (os - os[0]) * (truth[-1] - truth[0]) / (os[-1] - os[0])
            errors = np.abs(os - truth).mean(), np.abs(ends - truth).mean()
            found.append((spearmanr(os, truth)[0], pearsonr(os, truth)[0], *errors, np.polyfit(truth, os, 1)[0]))
        rank, pearson, mae, two_point, slope = np.mean(found, axis=0)
        least = np.min(found, axis=0)[1]
        print(
            f"{name}: Spearman {rank:.3f}, Pearson {pearson:.3f} (least {least:.3f}), MAE {mae:.3f} e, "
            f"ends set right {two_point:.3f} e, slope {slope:.2f}"
        )


if __name__ == "__main__":
    main()
