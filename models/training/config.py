"""The training config."""

from typing import Literal

from pydantic import Field, model_validator

from ...agent.types import Settings
from ..card import DomainCard, GridCard, OffsetCard
from ..network import SPTSizes
from .augment import Augmentation


class Network(SPTSizes):
    """Sizes of one SPT, and how many bands to look for in the training spectra."""

    bands: int = 4


class Optimisation(Settings):
    """AdamW under a one-cycle schedule."""

    epochs: int = 60
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    rows_per_epoch: int = 512
    """A smaller set is gone through several times an epoch, each time disturbed anew."""
    patience: int | None = None
    """Epochs without a better validation score after which training stops; the best weights are kept. None: the
    schedule runs to its end, and the last weights are kept."""
    regression_weight: float = 3.0
    """Of the regressed quantities' loss against one classified descriptor's."""
    recall_weight: float = 1.0
    """Of the loss of what is recalled against that of the heads; 0 trains without recall."""


class TrainingConfig(Settings):
    """One model: data, network, optimisation."""

    name: str
    """Of the model folder that is written."""
    dataset: str
    """``DATASET.npz`` and ``DATASET.csv`` in the data folder."""
    absorber: str
    edge: str = "K"
    edge_ev: float
    grid: GridCard
    classified: tuple[str, ...] = ("OS", "CN", "OCN", "CN2", "PSGO")
    regressed: tuple[str, ...] = ("NNRS", "MOOD", "OS_mean")
    units: dict[str, str] = Field(default_factory=dict)
    lowest: dict[str, float] = Field(default_factory=lambda: {"NNRS": 0.0, "MOOD": 0.0})
    """Least value of a regressed descriptor that means anything."""
    not_for_mixtures: tuple[str, ...] = ("CN2", "PSGO")
    network: Network = Network()
    augmentation: Augmentation = Augmentation()
    optimisation: Optimisation = Optimisation()
    pretrained: str | None = None
    """Model name or folder whose members' weights training starts from."""
    protocol: Literal["split", "cross-validation"] = "split"
    """The rows are cut into folds by material, and members never see some: what they say of those calibrates.
    ``split``: folds of ``train``; the ensemble is judged on ``val``. ``cross-validation``: folds of both, and every
    row is judged by the member that has not seen its material."""
    members: int = Field(default=5, ge=1)
    folds: int = Field(default=5, ge=2)
    """Of ``split``: at least as many as members; with more, each member sees more of the rows, and fewer rows
    calibrate. In cross-validation there are as many as members."""
    left_out: int = Field(default=1, ge=1)
    """Folds that each member leaves out, in a ring: member k the folds k, k + 1, … of the first ``members``. So many
    members judge each of those folds together: an ensemble errs less than its members, and is calibrated as one."""
    runs: int = Field(default=1, ge=1)
    """How often each member is fine-tuned from the same weights, in another order and disturbed otherwise; what is
    kept is the mean of the runs' weights, which errs less than one run and costs no more in serving (model soups:
    Wortsman et al., ICML 2022)."""
    seed: int = 0
    feff_minus_experiment: OffsetCard
    domain: DomainCard = DomainCard()
    """What augmentation must rehearse."""
    limits: tuple[str, ...] = ()
    """Where the model is not to be trusted, in sentences for its users."""
    licence: str
    sources: tuple[str, ...]
    cite: tuple[str, ...]

    @property
    def cuts(self) -> int:
        """How many folds there are."""
        return self.members if self.protocol == "cross-validation" else max(self.members, self.folds)

    @model_validator(mode="after")
    def _folds_fit_members(self) -> "TrainingConfig":
        if self.left_out > self.members or self.left_out >= self.cuts:
            raise ValueError(
                f"left_out {self.left_out}: at most the {self.members} members, and fewer than all folds"
            )
        if self.runs > 1 and self.pretrained is None:
            raise ValueError(f"runs {self.runs}: weights trained from scratch have no mean; name what is pretrained")
        return self
