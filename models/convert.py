"""Converts model folders to the present form of the network: the same weights in a file that answers faster.

``python -m xas_agent.models.convert FOLDER…`` writes ``model.ts``, its SHA-256 in the card, and ``README.md`` anew,
and prints the largest difference between the answers of both files. Weights are not changed.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from . import card as cards
from .card import Card, ModelError, sha256_of
from .engines.torchscript import load_module
from .network import Served, SPTShape, SPTSizes, save
from .readable import write_card_and_readme
from .training import served_weights

TOLERANCE = 1e-4
"""Largest allowed difference of an answer, in the unit of its column, between a converted file and the original."""


def shape_of(card: Card, weights: dict[str, Tensor]) -> SPTShape:
    """Return the shape of the network that a card describes."""
    recorded, grid = card.training["network"], card.grid.grid()
    sizes = {name: recorded[name] for name in SPTSizes.model_fields if name in recorded}
    return SPTShape(
        **sizes,
        grid_points=len(grid),
        periods=tuple(card.training["periods"]),
        classes=tuple(len(d.classes) for d in card.descriptors if d.kind == "classified"),
        regressed=len(card.regressed),
        short_points=None if grid.short_stop_ev is None else grid.short_points,
        members=len(weights["recall.keys"]),
    )


def served_of(folder: Path) -> Served:
    """Rebuild the network of a model folder from Python classes, whose layers can be examined and exported.

    Raises
    ------
    ModelError
        The folder is not a model, or its tensors do not fit this version's network.
    """
    weights = served_weights(folder)
    try:
        shape = shape_of(cards.read_card(folder), weights)
        served = Served(shape, weights["recall.keys"].shape[1], len(weights["ood_score.outliers"]))
        # The file also contains tensors that the constructor computes.
        served.load_state_dict({name: weights[name] for name in served.state_dict()})
    except (KeyError, RuntimeError) as e:
        raise ModelError(f"{folder}: not a network of this version ({str(e).splitlines()[0]})") from None
    return served.eval()


def plausible_spectra(served: Served, count: int, seed: int = 0) -> Tensor:
    """Return random spectra (count, G) about the mean of the training spectra; every second one is cut if allowed."""
    generator = torch.Generator().manual_seed(seed)
    grid, short = len(served.centre), served.short
    own = torch.randn(count, served.ood_score.axes.shape[1], generator=generator) * 0.3
    spectra = torch.ones(count, grid)
    spectra[:, :short] = served.denoiser.mean + own @ served.ood_score.axes.T
    spectra += 0.01 * torch.randn(count, grid, generator=generator)
    if short < grid:
        ends = torch.randint(short, grid + 1, (count,), generator=generator)
        spectra[(torch.arange(grid) >= ends.unsqueeze(1)) & (torch.arange(count) % 2 == 0).unsqueeze(1)] = torch.nan
    return spectra


@torch.inference_mode()
def largest_difference(one: Path, other: Path, spectra: Tensor) -> float:
    """Return the largest difference between the answers (N, columns) of two files ``model.ts``, by their folders."""
    answers = [load_module(folder, torch.device("cpu"))(spectra) for folder in (one, other)]
    return float((answers[0] - answers[1]).abs().max())


def convert(folder: Path) -> float:
    """Write a model folder's file in the present form, and return the largest difference of its answers.

    Raises
    ------
    ModelError
        The folder cannot be converted, or answers would differ by more than :data:`TOLERANCE`; nothing is written.
    """
    served = served_of(folder)
    stored = next(iter(torch.jit.load(folder / "model.ts", map_location="cpu").spt.parameters())).dtype
    with TemporaryDirectory() as beside:
        save(served, Path(beside) / "model.ts", stored)
        difference = largest_difference(folder, Path(beside), plausible_spectra(served, 256))
        if not difference <= TOLERANCE:
            raise ModelError(
                f"{folder}: the converted file answers differently by {difference:.1e}; it is not written"
            )
        (folder / "model.ts").write_bytes((Path(beside) / "model.ts").read_bytes())
    card = cards.read_card(folder)
    write_card_and_readme(folder, card.model_copy(update={"sha256": sha256_of(folder / "model.ts")}))
    return difference


if __name__ == "__main__":
    for name in sys.argv[1:]:
        sys.stdout.write(f"{name}: largest difference {convert(Path(name)):.1e}\n")
