"""``xas-agent evaluate``: writes a report on a model, or prints its scores on a data set."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ...agent.types import (
    Array,
    ConfigError,
    Frame,
    InputError,
    Settings,
    get_logger,
    read_mapping,
    validate_settings,
)
from ...models import card as cards
from ...models.cores import core_count
from ..config import read_training, shipped_training
from ..output.progress import progress_bars
from ..output.tables import print_table

try:
    from ...models.evaluation.report import Section, plain, write
    from ...models.evaluation.studies import (
        benchmark,
        benchmark_sections,
        delithiation,
        disorder,
        exploration,
        measured,
        out_of_distribution,
        transfer,
        uncertainty,
        universal,
    )
    from ...models.evaluation.studies.benchmark import BenchmarkSettings
    from ...models.evaluation.studies.disorder import DisorderSettings
    from ...models.evaluation.studies.element_rows import ElementRows
    from ...models.evaluation.studies.fine_tuning import TransferSettings
    from ...models.evaluation.studies.joint_plan import UniversalSettings
    from ...models.evaluation.studies.series_models import DelithiationSettings
except ImportError as error:
    raise InputError(
        f"evaluation requires the [train] extra: pip install 'xas-agent[train]' (no {error.name})"
    ) from None
import sys

import numpy as np

from ...agent.estimate import FrameServer
from ...agent.spectra import TheoryAlignment
from ...models.progress import Progress
from ...models.runtime import Model
from ...models.training import DataError, FeffData, TrainingConfig, TrainingPlan, config_of, load_sets, scores

Study = Literal[
    "benchmark",
    "uncertainty",
    "out_of_distribution",
    "exploration",
    "transfer",
    "universal",
    "delithiation",
    "disorder",
]
STUDIES: tuple[Study, ...] = get_args(Study)
_log = get_logger()

RENAMED_STUDIES: dict[str, Study] = {"unfamiliar": "out_of_distribution"}
"""Former names of studies with their present names."""


class EvaluationConfig(Settings):
    """An evaluation config, such as ``configs/evaluation/full.yaml``: the studies of a report and their settings."""

    studies: tuple[Study, ...]
    """Studies of the report, in this order."""
    benchmark: BenchmarkSettings | None = None
    """The SPT against its competitors."""
    transfer: TransferSettings | None = None
    """Fine-tuning to other absorbers, compared with training from scratch. In a YAML file, ``targets`` is a top-level
    key with a list of training configs; ``pretrained`` is the evaluated model."""
    universal: UniversalSettings | None = None
    """One network for all absorbers. In a YAML file, ``source`` and ``transfer`` come from the model and from the key
    ``transfer``."""
    delithiation: DelithiationSettings | None = None
    """Cross-validation over the layered series, leaving out one composition at a time."""
    disorder: DisorderSettings | None = None
    """Disordered structures: zero-shot, fine-tuned, and from scratch. In a YAML file, ``targets`` and ``pretrained``
    come from the evaluated model."""


def read_evaluation(name_or_file: str, model: str) -> EvaluationConfig:
    """Read an evaluation config.

    Parameters
    ----------
    name_or_file : str
        ``full``, ``quick`` or a YAML file.
    model : str
            The evaluated model, which ``transfer`` and ``delithiation`` fine-tune to the data sets ``targets``.

    Returns
    -------
    EvaluationConfig

    Raises
    ------
    ConfigError
        The file does not exist or is invalid.
    """
    shipped = Path(__file__).parents[2] / "configs" / "evaluation" / f"{name_or_file}.yaml"
    path = shipped if shipped.is_file() else Path(name_or_file)
    if not path.is_file():
        raise ConfigError(f"{name_or_file}: no such evaluation config; expected quick, full or a YAML file")
    found = read_mapping(path)
    studies = found.get("studies")
    if isinstance(studies, list) and (renamed := [old for old in RENAMED_STUDIES if old in studies]):
        raise ConfigError(f"{path}: key studies: {_renamed(renamed[0])}")
    source = config_of(cards.read_card(cards.find(model)))
    targets = found.pop("targets", None) or []
    if not isinstance(targets, list):
        raise ConfigError(f"{path}: key targets: found {targets!r:.80}, expected: a list of training configs")
    # The training data of the model are not a target.
    others = [t for t in (read_training(str(t)) for t in targets) if t.datasets != source.datasets]
    common = {"targets": others, "pretrained": model}
    for study in ("transfer", "delithiation"):
        if isinstance(found.get(study), dict):
            found[study] = common | found[study]
    if isinstance(found.get("disorder"), dict):
        rows = {"dataset": f"{source.absorber.lower()}_k_disordered"} | found["disorder"]
        own = source.model_copy(update={"dataset": str(rows["dataset"])})
        found["disorder"] = {"targets": [own], "pretrained": model} | rows
    if isinstance(found.get("universal"), dict):
        if not found.get("transfer"):
            raise ConfigError(f"{path}: universal is compared with transfer; found no transfer")
        found["universal"] = {"source": source, "transfer": found["transfer"]} | found["universal"]
    return validate_settings(found, EvaluationConfig, str(path))


def config_in(card: cards.Card, data: Path) -> TrainingConfig:
    """Return a model's training config with the data sets that a folder has; a warning names the others.

    If the folder has none of them, all are kept, and reading them reports what is missing.
    """
    config = config_of(card)
    there = tuple(name for name in config.datasets if (data / f"{name}.npz").is_file())
    if not there or there == config.datasets:
        return config
    absent = sorted(set(config.datasets) - set(there))
    _log.warning("data sets of the training are not in the folder", folder=str(data), absent=", ".join(absent))
    return config.model_copy(update={"dataset": there})


@dataclass(frozen=True)
class EvaluationContext:
    """A model with the data and settings of its evaluation."""

    folder: Path
    model: Model
    plan: TrainingPlan
    data: Path
    elements: Sequence[ElementRows]
    """The model's data set, and those of the shipped training configs whose data the folder has."""
    config: EvaluationConfig
    kept: Path
    """Folder of the finished trainings."""
    jobs: int

    def sections(self, study: Study, progress: Progress) -> list[Section]:
        """Run a study and return its sections; empty if the config has no settings for it."""
        config, rest = self.config, (self.data, self.kept, self.jobs, progress)
        if study == "uncertainty":
            return [uncertainty.uncertainty(self.model, self.plan, self.elements)]
        if study == "out_of_distribution":
            return [out_of_distribution.out_of_distribution(self.model, self.plan, self.elements)]
        if study == "exploration":
            return [exploration.exploration(self.folder, self.plan, self.elements)]
        if study == "benchmark" and config.benchmark and len(self.plan.judged):
            return benchmark_sections.sections(benchmark.run(config.benchmark, self.model, self.plan, *rest))
        if study == "transfer" and config.transfer:
            return [transfer.transfer(config.transfer, *rest)]
        if study == "universal" and config.universal and len(self.plan.judged):
            return [universal.universal(config.universal, *rest)]
        if study == "delithiation" and config.delithiation:
            return [delithiation.delithiation(config.delithiation, *rest)]
        if study == "disorder" and config.disorder and (self.data / f"{config.disorder.dataset}.npz").is_file():
            return [disorder.disorder(config.disorder, *rest)]
        return []


def report_on(name: str, data: Path, out: Path, config: str, only: Sequence[str], jobs: int | None) -> Path:
    """Evaluate a model with the studies of an evaluation config and write the report.

    Finished trainings are kept in ``out/kept``, so that an interrupted report continues.

    Parameters
    ----------
    name : str
        Name or folder of the model.
    data : Path
        Folder with the FEFF rows.
    out : Path
        Folder of the report.
    config : str
        ``full``, ``quick`` or a YAML file.
    only : sequence of str
        Names of the studies; empty for all studies of the config.
    jobs : int or None
        Number of trainings at the same time; None uses all cores.

    Returns
    -------
    Path
        Page of the report.

    Raises
    ------
    InputError
        A study is unknown, or no study has both settings and data.
    """
    for old in RENAMED_STUDIES:
        if old in only:
            raise InputError(_renamed(old))
    studies: tuple[Study, ...] = tuple(s for s in STUDIES if s in only)
    if len(studies) < len(set(only)):
        raise InputError(f"no study {', '.join(sorted(set(only) - set(STUDIES)))}; there are {', '.join(STUDIES)}")
    settings = read_evaluation(config, name)
    folder = cards.find(name)
    model = Model(folder, "cpu")
    plan = TrainingPlan.read(config_in(model.card, data), data)
    others = [t for t in map(read_training, shipped_training()) if t.datasets != plan.config.datasets]
    there = [t for t in (plan.config, *others) if all((data / f"{name}.npz").is_file() for name in t.datasets)]
    elements = [ElementRows.read(t, data) for t in there]
    tuned = (settings.transfer, settings.delithiation, settings.disorder)
    targets = [t for study in tuned if study for t in study.targets]
    kept = out / "kept" / fingerprint([plan.config, *others, *targets], data)
    context = EvaluationContext(folder, model, plan, data, elements, settings, kept, jobs or core_count())
    sections: list[Section] = []
    skipped: list[str] = []
    for study in studies or settings.studies:
        with progress_bars() as progress:
            progress(study, 0, None)
            written = context.sections(study, progress)
        sections += written
        skipped += [] if written else [study]
    if not sections:
        raise InputError(
            f"{config}: nothing to report; {', '.join(skipped)} need settings in the config, and a model whose data "
            "have validation rows"
            + (f"; disorder needs {data / settings.disorder.dataset}.npz" if settings.disorder else "")
        )
    sections.append(measured.measured(model.card))
    there = len(plan.learnt)
    trained = model.card.training.get("rows", there)
    lead = (
        f"`{plain(model.name)}`, SHA-256 `{model.sha256[:12]}…`, trained on {trained} sites of "
        f"{plain(', '.join(plan.config.datasets))}{'' if trained == there else f' (of {there} in these data)'}. "
        "Every table is a CSV in `tables/`, every figure a PNG and an SVG in `figures/`."
    )
    if skipped:
        lead += f" Omitted without settings or rows: {', '.join(skipped)}."
    return write(out, f"Evaluation of {model.name}", lead, sections)


def _renamed(study: str) -> str:
    return f"study {study} has a new name: {RENAMED_STUDIES[study]}"


def fingerprint(configs: Sequence[TrainingConfig], data: Path) -> str:
    """Return a digest of the data files; trainings on other files are not reused."""
    digest = hashlib.sha256()
    for name in sorted({name for c in configs for name in c.datasets}):
        for path in (data / f"{name}.npz", data / f"{name}.csv"):
            if path.is_file():
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def evaluate_model(name: str, folder: Path, split: str, dataset: str | None) -> None:
    """Print weighted F1 or R², the error of the mean, and width and coverage of the intervals, per descriptor.

    For a model of short spectra, the same scores follow for each end energy with its own calibration of the
    intervals, for the rows that reach it, cut there.

    Parameters
    ----------
    name : str
        Name or folder of the model.
    folder : Path
        Folder with the FEFF rows.
    split : str
        Rows to evaluate, such as ``val``.
    dataset : str or None
        Name of the data set; None selects those of the training.

    Raises
    ------
    DataError
        The data set has no rows of the split.
    """
    model = Model(cards.find(name))
    sets = (dataset,) if dataset else config_in(model.card, folder).datasets
    data = load_sets(folder, sets, tuple(d.name for d in model.card.descriptors))
    data = data.rows(data.split == split)
    if len(data) == 0:
        raise DataError(f"{folder}: no rows of split {split!r} in {data.name}")
    answered, table = _judged(model, data, None)
    sys.stdout.write(f"{model.name} on {answered} of {len(data)} rows of {data.name}, split {split}\n")
    if split in _learnt_splits(model.card) and set(sets) <= set(config_of(model.card).datasets):
        sys.stdout.write(
            "The model was trained on rows of this split, so it knows them: these are no scores of new materials. "
            f"Its card has those: xas-agent models show {name}\n"
        )
    sys.stdout.write("\n")
    columns = ["descriptor", "value", "MAE of mean", "half-width", "90 % interval holds", "rows", "metric"]
    ends = sorted({w.stop_ev for d in model.card.descriptors for w in d.interval.windows})
    if not ends:
        print_table(columns, table)
        return
    table = [["as computed", *row] for row in table]
    edge = model.card.training["half_edge_ev"]
    for end in ends:
        reaching = data.rows(data.last - model.card.edge_ev >= end)
        if len(reaching):
            table += [[f"{end - edge:+.0f} eV", *row] for row in _judged(model, reaching, end)[1]]
    print_table(["spectra end at", *columns], table)
    sys.stdout.write("\nEnds are counted from the half height of the edge.\n")


def _learnt_splits(card: cards.Card) -> tuple[str, ...]:
    """Return the splits of whose rows the networks of a model learn."""
    return ("train", "val") if config_of(card).protocol == "cross-validation" else ("train",)


def _judged(model: Model, data: FeffData, end_ev: float | None) -> tuple[int, list[list[str]]]:
    """Return the number of answered rows, and the scores of each descriptor as texts.

    ``end_ev``: energy at which spectra are cut, eV from the tabulated edge; None for whole rows.
    """
    spectra = zip(data.energy, data.mu, strict=True)
    if end_ev is not None:
        spectra = [_cut(energy, mu, end_ev + model.card.edge_ev) for energy, mu in spectra]
    frames = [Frame(str(i), data.name, i, np.nan, energy, mu) for i, (energy, mu) in enumerate(spectra)]
    serve = FrameServer([model], TheoryAlignment(), None, named=True)
    estimates = {answer.frame.seq_num: answer.estimate for answer in serve(frames) if answer.estimate is not None}
    rows = [*estimates]
    table: list[list[str]] = []
    for d in model.card.descriptors if rows else ():
        truth = data.labels[d.name][rows]
        mean_truth = data.labels["OS_mean"][rows] if d.mean_head == "OS_mean" else truth
        answers = [estimate.descriptors[d.name] for estimate in estimates.values()]
        mean, lo, hi = (np.array([getattr(e, k) for e in answers]) for k in ("mean", "lo", "hi"))
        value = np.array([e.mean if e.value is None else e.value for e in answers])
        known = ~np.isnan(mean_truth)
        if not known.any():
            continue
        score = scores({d.name: truth}, {d.name: value}, (d.name,) if d.kind == "classified" else ())[d.name]
        held = (mean_truth[known] >= lo[known]) & (mean_truth[known] <= hi[known])
        half = np.median(hi[known] - lo[known]) / 2
        error = np.abs(mean[known] - mean_truth[known]).mean()
        metric = "weighted F1" if d.kind == "classified" else "R2"
        figures = [f"{score:.3f}", f"{error:.3f} {d.unit}", f"{half:.3f} {d.unit}", f"{held.mean():.1%}"]
        of_value, of_mean = (
            (~np.isnan(truth)).sum(),
            known.sum(),
        )  # the mean oxidation state is known for fewer compounds
        counts = f"{of_value}" if of_value == of_mean else f"{of_value}, mean {of_mean}"
        table.append([d.name, *figures, counts, metric])
    return len(rows), table


def _cut(energy: Array, mu: Array, end_ev: float) -> tuple[Array, Array]:
    """Cut a spectrum (M,) at an energy inside it, as if the scan ended there."""
    before = energy < end_ev
    return np.append(energy[before], end_ev), np.append(mu[before], np.interp(end_ev, energy, mu))
