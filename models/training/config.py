"""The training config."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ...agent.types import Settings
from ..card import DomainCard, GridCard, OffsetCard
from ..network import SPTSizes
from .augment import Augmentation


class Network(SPTSizes):
    """Sizes of one SPT, and the number of its frequency bands."""

    bands: int = 4
    """Number of frequency bands: the strongest periods of the training spectra."""


class Optimisation(Settings):
    """AdamW under a one-cycle schedule."""

    epochs: int = 60
    """Epochs of the schedule."""
    batch: int = 128
    """Rows per step."""
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule."""
    weight_decay: float = 0.02
    """Weight decay of AdamW."""
    rows_per_epoch: int = 512
    """Smallest number of rows per epoch; a smaller set is repeated, each time with new disturbances."""
    patience: int | None = None
    """Training stops after this many epochs without a better validation score and keeps the best weights. Unset: the
    schedule runs to its end, and the last weights are kept."""
    long_rows: int = Field(default=1, ge=1)
    """Number of times that an epoch repeats the rows that reach the grid's end, if others end before."""
    regression_weight: float = 3.0
    """Weight of the regression loss relative to one classified descriptor."""
    recall_weight: float = 1.0
    """Weight of the recall loss relative to that of the heads; 0 trains without recall."""
    mixed_precision: bool = False
    """Whether to compute the network in bfloat16 on CUDA; weights and losses remain single precision."""


def _named(dataset: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if not dataset:
        raise ValueError(
            "no data set is named; name one of the data folder (cu_k for cu_k.npz and cu_k.csv) or several"
        )
    return dataset


DataSets = Annotated[str | tuple[str, ...], AfterValidator(_named)]


class OtherAbsorber(Settings):
    """Rows of another absorber, for pre-training."""

    dataset: DataSets
    """Data sets, as in the config."""
    edge_ev: float
    """Tabulated energy of its edge, eV."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return (self.dataset,) if isinstance(self.dataset, str) else self.dataset


class TrainingConfig(Settings):
    """``configs/training/*.yaml``: data, network and optimisation of one model."""

    name: str
    """Name of the model folder to write."""
    dataset: DataSets
    """``DATASET.npz`` and ``DATASET.csv`` in the data folder; several are joined."""
    absorber: str
    """Symbol of the absorbing element."""
    edge: str = "K"
    """Absorption edge."""
    edge_ev: float
    """Tabulated energy of the edge, eV."""
    others: tuple[OtherAbsorber, ...] = ()
    """Rows of other absorbers, on the same grid relative to their own edges. A network of several absorbers can be
    the start for single ones (``pretrained``)."""
    grid: GridCard
    """Energies of the aligned spectra."""
    classified: tuple[str, ...] = ("OS", "CN", "OCN", "CN2", "PSGO")
    """Descriptors that are classified."""
    regressed: tuple[str, ...] = ("NNRS", "MOOD", "OS_mean")
    """Quantities that are regressed."""
    units: dict[str, str] = Field(default_factory=dict)
    """Units of the descriptors by name."""
    lowest: dict[str, float] = Field(default_factory=lambda: {"NNRS": 0.0, "MOOD": 0.0})
    """Lowest meaningful value of a regressed descriptor."""
    not_for_mixtures: tuple[str, ...] = ("CN2", "PSGO")
    """Descriptors that have no meaning for a mixture of sites."""
    network: Network = Network()
    """Sizes of the network."""
    augmentation: Augmentation = Augmentation()
    """Disturbances of the training spectra."""
    optimisation: Optimisation = Optimisation()
    """Schedule and losses."""
    pretrained: str | None = None
    """Name or folder of the model with the initial weights."""
    protocol: Literal["split", "cross-validation"] = "split"
    """The rows are divided into folds by material; each member leaves some folds out, and its answers for those
    calibrate the model. ``split``: folds of ``train``; ``val`` judges the ensemble. ``cross-validation``: folds of
    both; each row is judged by the member that has not seen its material."""
    members: int = Field(default=5, ge=1)
    """Number of networks in the ensemble."""
    folds: int = Field(default=5, ge=2)
    """Number of folds of ``split``, at least the number of members; with more folds each member trains on more rows,
    and fewer rows calibrate. Cross-validation has as many folds as members."""
    left_out: int = Field(default=1, ge=1)
    """Number of folds that each member leaves out, in a ring: member k leaves out the folds k, k + 1, … of the first
    ``members`` folds. The same number of members then judges each of these folds together; since the error of an
    ensemble is smaller than that of its members, calibration uses ensembles too."""
    runs: int = Field(default=1, ge=1)
    """Number of fine-tunings of each member from the same weights, in different orders and with different
    disturbances. The model keeps the mean of the weights, whose error is smaller than that of one run at the same
    cost in serving (model soups: Wortsman et al., ICML 2022)."""
    seed: int = 0
    """Seed of all random numbers."""
    feff_minus_experiment: OffsetCard
    """Offset from measured to FEFF energies."""
    domain: DomainCard = DomainCard()
    """Further differences between FEFF and measurement, which the augmentation must include."""
    limits: tuple[str, ...] = ()
    """Limits of the model's validity, in sentences for its users."""
    licence: str
    """Licence of the model."""
    sources: tuple[str, ...]
    """Origins of the training data."""
    cite: tuple[str, ...]
    """Publications to cite."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return (self.dataset,) if isinstance(self.dataset, str) else self.dataset

    @property
    def labels(self) -> tuple[str, ...]:
        """Columns that every row of the data set must have; if a data set lacks ``OS_mean``, ``OS`` replaces it."""
        return self.classified + tuple(d for d in self.regressed if d != "OS_mean")

    @property
    def cuts(self) -> int:
        """Number of folds of the chosen protocol."""
        return self.members if self.protocol == "cross-validation" else max(self.members, self.folds)

    @model_validator(mode="after")
    def _folds_fit_members(self) -> "TrainingConfig":
        if self.left_out > self.members or self.left_out >= self.cuts:
            raise ValueError(
                f"left_out {self.left_out}: expected at most the {self.members} members, and fewer than all folds"
            )
        if self.runs > 1 and self.pretrained is None:
            raise ValueError(f"runs {self.runs}: weights trained from scratch cannot be averaged; set pretrained")
        return self
