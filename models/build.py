"""From a training config to a model folder: ensemble, calibration, export, card."""

import multiprocessing as mp
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..agent.grid import Array
from . import card as cards
from .augment import mixtures
from .card import Card, DescriptorCard, Interval
from .data import FeffData, check_grid, load_feff
from .metrics import conformal_scale, scores, temperature
from .served import Familiarity, Served
from .spt import SPT, SPTShape, dominant_periods, ensemble_weights, member_weights
from .training import Member, Rows, Scale, TrainingConfig, cropped, folds, prepare, train_member

Progress = Callable[[int, int, float | None], None]
"""(member, epoch, validation score)"""

FAMILIAR_DRAWS = 4000


class Plan:
    """All that the members share: rows, folds, scaling, the network's shape."""

    def __init__(self, config: TrainingConfig, folder: Path) -> None:
        data = load_feff(
            folder, config.dataset, config.classified + tuple(d for d in config.regressed if d != "OS_mean")
        )
        self.config = config
        self.data: FeffData = data.rows(np.isin(data.split, ["train", "val"]))
        check_grid(config.grid.grid(), self.data, config.edge_ev)
        self.rows: Rows = prepare(self.data, config)
        if config.protocol == "split":
            train, held = np.flatnonzero(self.data.split == "train"), np.flatnonzero(self.data.split == "val")
            self.folds = [(train, held)] * config.members
        else:
            every = np.arange(len(self.data))
            self.folds = [
                (np.setdiff1d(every, held), held) for held in folds(self.data.material, config.members, config.seed)
            ]
        self.clean = self.rows.aligned(self.rows.fine)
        self.start = cards.find(config.pretrained) if config.pretrained else None
        self.shape, self.scale = self._shape_and_scale()
        self.temperature = torch.ones(len(config.classified))

    def _shape_and_scale(self) -> tuple[SPTShape, Scale]:
        n = self.config.network
        train = self.clean[self.folds[0][0]] if self.config.protocol == "split" else self.clean
        scale, periods = Scale(train.mean(0), train.std(0) + 0.02), dominant_periods(train, n.bands)
        if self.start is not None:
            # The pre-trained filters know their own scaling and periods.
            source = served_weights(self.start)
            points = len(self.config.grid.grid())
            scale = Scale(source["centre"][:points], source["spread"][:points])
            periods = tuple(cards.read_card(self.start).training["periods"])
        shape = SPTShape(
            grid_points=self.clean.shape[1],
            periods=periods,
            classes=tuple(len(c) for c in self.rows.targets.classes),
            regressed=len(self.config.regressed),
            **n.model_dump(exclude={"bands"}),
        )
        return shape, scale

    def new_member(self, k: int) -> SPT:
        """A fresh network, or one with the pre-trained weights of member k."""
        torch.manual_seed(self.config.seed + k)
        network = SPT(self.shape)
        if self.start is not None:
            joined = served_weights(self.start)
            spt = {n.removeprefix("spt."): w for n, w in joined.items() if n.startswith("spt.")}
            count = cards.read_card(self.start).training["members"]
            network.load_state_dict(cropped(member_weights(spt, k % count, count), self.shape))
        return network


def served_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder's file, by the names of :class:`Served`."""
    cards.verify(folder)
    return {k: v.detach() for k, v in torch.jit.load(folder / "model.ts", map_location="cpu").state_dict().items()}


def train_one(
    config: TrainingConfig, folder: Path, k: int, threads: int, queue: Any
) -> tuple[dict[str, Any], int, float]:
    """Train member k, in a process of its own; gives weights, epochs and seconds."""
    torch.set_num_threads(threads)
    plan = Plan(config, folder)
    train, held = plan.folds[k]
    judged = plan.config.protocol == "split"
    truth = {d: v[held] for d, v in plan.data.labels.items()}

    def watch(epoch: int, network: SPT) -> float | None:
        score = None
        if judged:
            single = ensemble(plan, [network])
            score = float(np.mean(list(scores(truth, predictions(single, plan, held), config.classified).values())))
        queue.put((k, epoch, score))
        return score

    member = train_member(plan.new_member(k), plan.rows, train, plan.scale, config, config.seed + k, watch)
    return member.network.state_dict(), member.epochs, member.seconds


def ensemble(plan: Plan, networks: list[SPT]) -> Served:
    """The shipped module of these members, its familiarity not yet learnt."""
    served = Served(plan.shape.model_copy(update={"members": len(networks)}))
    served.spt.load_state_dict(ensemble_weights([network.state_dict() for network in networks]))
    t = plan.rows.targets
    for buffer, value in (
        (served.centre, plan.scale.centre),
        (served.spread, plan.scale.spread),
        (served.target_mean, t.mean),
        (served.target_sd, t.sd),
        (served.temperature, plan.temperature),
    ):
        buffer.copy_(value)
    return served.eval()


def predictions(served: Served, plan: Plan, index: NDArray[np.int_]) -> dict[str, Array]:
    """The most probable class or the regressed value of the clean rows ``index``, by descriptor."""
    return {d: e[0] if d in plan.config.classified else e[1] for d, e in estimates(served, plan, index).items()}


def estimates(served: Served, plan: Plan, index: NDArray[np.int_]) -> dict[str, tuple[Array, Array, Array]]:
    """(most probable class, mean, sd), each (n,), of every descriptor and regressed quantity on clean rows."""
    with torch.no_grad():
        out = served(plan.clean[index]).double().numpy()
    found: dict[str, tuple[Array, Array, Array]] = {}
    column = 0
    for name, classes in zip(plan.config.classified, plan.rows.targets.classes, strict=True):
        p = out[:, column : column + len(classes)]
        mean = p @ classes
        found[name] = classes[p.argmax(1)].astype(float), mean, np.sqrt(np.maximum(p @ classes**2 - mean**2, 0))
        column += len(classes)
    r = len(plan.config.regressed)
    for j, name in enumerate(plan.config.regressed):
        mean, sd = out[:, column + j], out[:, column + r + j]
        found[name] = mean, mean, sd
    return found


def build(config: TrainingConfig, data: Path, out: Path, jobs: int, progress: Progress) -> Path:
    """Train, calibrate and write the model folder ``out / config.name``.

    Parameters
    ----------
    data : folder with the FEFF rows (:mod:`xas_agent.models.data`)
    jobs : members trained at the same time, each on one thread
    """
    plan = Plan(config, data)
    context = mp.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    with context.Manager() as manager, ProcessPoolExecutor(jobs, mp_context=context) as pool:
        queue = manager.Queue()
        running = [pool.submit(train_one, config, data, k, threads, queue) for k in range(config.members)]
        while not all(r.done() for r in running) or not queue.empty():
            try:
                progress(*queue.get(timeout=0.5))
            except Exception as e:
                if type(e).__name__ != "Empty":
                    raise
        trained = [r.result() for r in running]
    members: list[Member] = []
    for weights, epochs, seconds in trained:
        network = SPT(plan.shape)
        network.load_state_dict(weights)
        members.append(Member(network.eval(), epochs, seconds))
    return assemble(plan, members, out)


def assemble(plan: Plan, members: list[Member], out: Path) -> Path:
    """Calibrate the ensemble of trained members and write its folder."""
    plan.temperature = temperatures(plan, members)
    served = ensemble(plan, [m.network for m in members])
    generator = torch.Generator().manual_seed(plan.config.seed)
    pick = torch.randint(len(plan.data), (FAMILIAR_DRAWS,), generator=generator)
    weights = mixtures(FAMILIAR_DRAWS, FAMILIAR_DRAWS, plan.config.augmentation, generator)
    served.familiar.fit(plan.rows.disturbed(weights, pick, plan.config.augmentation, generator))
    return export(plan, served, members, out)


def temperatures(plan: Plan, members: list[Member]) -> torch.Tensor:
    """One per classified descriptor, from rows that what predicts them has not trained on."""
    if plan.config.protocol == "split":
        index = plan.folds[0][1]
        groups = [(index, torch.stack([logits_of(plan, m.network, index) for m in members]).mean(0))]
    else:
        groups = [(i, logits_of(plan, m.network, i)) for m, (_, i) in zip(members, plan.folds, strict=True)]
    found: list[float] = []
    sizes = list(plan.shape.classes)
    for k, one_hot in enumerate(plan.rows.targets.one_hot):
        known = [one_hot[i].sum(1).numpy() > 0 for i, _ in groups]
        logits = [z.split(sizes, 1)[k].double().numpy()[ok] for (_, z), ok in zip(groups, known, strict=True)]
        labels = [one_hot[i].argmax(1).numpy()[ok] for (i, _), ok in zip(groups, known, strict=True)]
        found.append(temperature(logits, labels))
    return torch.tensor(found)


def logits_of(plan: Plan, network: SPT, index: NDArray[np.int_]) -> torch.Tensor:
    """(n, all classes) on clean rows."""
    with torch.no_grad():
        return network(plan.scale.apply(plan.clean[index]))[0].squeeze(1)


def export(plan: Plan, served: Served, members: list[Member], out: Path) -> Path:
    """Write ``model.ts`` and ``card.yaml``."""
    config = plan.config
    folder = out / config.name
    folder.mkdir(parents=True, exist_ok=True)
    scripted = torch.jit.script(served)
    scripted.save(str(folder / "model.ts"))
    held = held_out(plan, served, members)
    card = Card(
        name=config.name,
        absorber=config.absorber,
        edge=config.edge,
        edge_ev=config.edge_ev,
        grid=config.grid,
        descriptors=tuple(describe(plan, d, held) for d in (*config.classified, *config.regressed) if d != "OS_mean"),
        regressed=config.regressed,
        feff_minus_experiment=config.feff_minus_experiment,
        ood="distance and worst point in principal components of the augmented training spectra, as a ratio to what "
        f"{Familiarity.QUANTILE:.0%} of them stay under; above 1 is unfamiliar",
        training={
            "dataset": config.dataset,
            "sources": list(config.sources),
            "rows": len(plan.data),
            "materials": len(np.unique(plan.data.material)),
            "protocol": config.protocol,
            "pretrained": config.pretrained,
            "members": len(members),
            "epochs": [m.epochs for m in members],
            "parameters": sum(p.numel() for p in served.parameters()),
            "periods": list(plan.shape.periods),
            "temperature": [round(t, 3) for t in plan.temperature.tolist()],
            "network": config.network.model_dump(),
            "augmentation": config.augmentation.model_dump(),
            "optimisation": config.optimisation.model_dump(),
            "seed": config.seed,
        },
        metrics=judged(plan, served, members),
        licence=config.licence,
        cite=config.cite,
        sha256=cards.sha256_of(folder / "model.ts"),
    )
    cards.write_card(folder, card)
    return folder


def held_out(plan: Plan, served: Served, members: list[Member]) -> dict[str, tuple[Array, Array, Array, Array]]:
    """(true, most probable, mean, sd) per descriptor on rows that what predicts them has not trained on."""
    parts: list[tuple[NDArray[np.int_], Mapping[str, tuple[Array, Array, Array]]]] = []
    if plan.config.protocol == "split":
        index = plan.folds[0][1]
        parts.append((index, estimates(served, plan, index)))
    else:
        for member, (_, index) in zip(members, plan.folds, strict=True):
            parts.append((index, estimates(ensemble(plan, [member.network]), plan, index)))
    found: dict[str, tuple[Array, Array, Array, Array]] = {}
    for name in (*plan.config.classified, *plan.config.regressed):
        true = np.concatenate([plan.data.labels[name][i] for i, _ in parts])
        value, mean, sd = (np.concatenate([e[name][j] for _, e in parts]) for j in range(3))
        found[name] = true, value, mean, sd
    return found


def describe(plan: Plan, name: str, held: Mapping[str, tuple[Array, Array, Array, Array]]) -> DescriptorCard:
    """The card of one descriptor, its interval calibrated on held-out rows."""
    config = plan.config
    head = "OS_mean" if name == "OS" and "OS_mean" in config.regressed else None
    true, _, mean, sd = held[head or name]
    known = ~np.isnan(true)
    error = mean[known] - true[known]
    floor = float(np.median(np.abs(error))) / 2 + 1e-3
    scale = conformal_scale(error, np.hypot(sd[known], floor), coverage=0.9)
    classified = name in config.classified
    return DescriptorCard(
        name=name,
        kind="classified" if classified else "regressed",
        unit=config.units.get(name, ""),
        classes=tuple(plan.rows.targets.classes[config.classified.index(name)].tolist()) if classified else (),
        mean_head=head,
        lowest=config.lowest.get(name),
        mixture=name not in config.not_for_mixtures,
        interval=Interval(scale=round(scale, 4), floor=round(floor, 5)),
    )


def judged(plan: Plan, served: Served, members: list[Member]) -> dict[str, Any]:
    """Weighted F1 or R² per descriptor: of the ensemble on ``val``, or mean ± standard error over the folds."""
    config, labels = plan.config, plan.data.labels

    def score(module: Served, index: NDArray[np.int_]) -> dict[str, float]:
        return scores({d: v[index] for d, v in labels.items()}, predictions(module, plan, index), config.classified)

    kinds = {d: "weighted F1" if d in config.classified else "R2" for d in (*config.classified, *config.regressed)}
    if config.protocol == "split":
        found = score(served, plan.folds[0][1])
        return {
            "on": f"{len(plan.folds[0][1])} validation rows, also used to choose epochs, sizes and intervals",
            **{d: {"metric": kinds[d], "value": round(v, 4)} for d, v in found.items()},
        }
    each = [score(ensemble(plan, [m.network]), i) for m, (_, i) in zip(members, plan.folds, strict=True)]
    per = {d: np.array([e[d] for e in each]) for d in kinds}
    os_true, _, os_mean, _ = held_out(plan, served, members)["OS_mean"]
    return {
        "on": f"{len(members)}-fold cross-validation by material, single members, mean and standard error over folds",
        "OS_mean_MAE_e": round(float(np.nanmean(np.abs(os_mean - os_true))), 4),
        **{
            d: {
                "metric": kinds[d],
                "value": round(float(v.mean()), 4),
                "standard_error": round(float(v.std(ddof=1) / len(v) ** 0.5), 4),
            }
            for d, v in per.items()
        },
    }
