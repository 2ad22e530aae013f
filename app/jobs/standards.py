"""``xas-agent standards``: judges the answers for measured spectra of known compounds."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...adapters.formats import Columns, FileSpectrum
from ...agent.estimate import Answer
from ...agent.types import DescriptorEstimate, Estimator, Flag, InputError, Refusal, get_logger
from ...models import card as cards
from ...models.card import HIT_E, StandardCard
from ...models.readable import write_card_and_readme
from ..config import Config
from ..output.cells import TableWriter
from ..output.opening import make_folder
from ..wiring import load_models
from .files import answers_of, refusal_of
from .known_compounds import KnownCompound, elements_of

NARROW_E, WIDE_E, FAR_E = 0.25, 0.5, 1.0
"""Errors, e: two for which the shares of answers are stated besides that of hits, and one that requires a flag."""

_Z90 = 1.645  # half-width of a normal distribution's 90 % interval, standard deviations
_FEWEST_FOR_MISFIT = 10  # oxides: fewer have no 90 % quantile
_PARTS = ("mean", "lo", "hi", "class", "p")
_OF_THE_ANSWER = frozenset(f"{name}_{part}" for name in ("OS", "CN") for part in _PARTS)
_OF_THE_ANSWER |= {"class", "verdict", "model", "error", "inside", "ood_score", "flagged", "flags", "e0_ev"}
_OF_THE_ANSWER |= {"calibrated_by", "correction_ev"}
"""Columns of the answer; they replace columns of the same name from an earlier judgement."""

_log = get_logger()

Read = tuple[KnownCompound, FileSpectrum | str]
"""A row of the table, with its spectrum or the reason why it cannot be read."""


@dataclass(frozen=True)
class Judged:
    """One standard with the answer that a user receives."""

    known: KnownCompound
    answer: Answer | Refusal | str
    """The answer, or the reason why there is none."""

    @property
    def set_aside(self) -> str:
        """Reason why there is no estimate; empty if there is one."""
        return self.answer if isinstance(self.answer, str) else str(refusal_of(self.answer) or "")

    @property
    def served(self) -> Answer | None:
        """The answer, if it has an estimate."""
        return self.answer if isinstance(self.answer, Answer) and not self.set_aside else None

    @property
    def os(self) -> DescriptorEstimate | None:
        return self._descriptor("OS")

    @property
    def cn(self) -> DescriptorEstimate | None:
        return self._descriptor("CN")

    @property
    def error(self) -> float | None:
        """Error of the mean oxidation state, e; None without an answer or a known value."""
        return None if self.os is None or self.known.os is None else self.os.mean - self.known.os

    @property
    def is_inside(self) -> bool | None:
        """Whether the interval contains the known oxidation state; None without an answer or a known value."""
        return None if self.os is None or self.known.os is None else self.os.lo <= self.known.os <= self.os.hi

    @property
    def missing_sd(self) -> float | None:
        """Standard deviation, e, of a Gaussian misfit between FEFF and measurement, including the card's, for which
        the interval just reaches the known oxidation state; None without an answer or a known value."""
        if self.os is None or self.error is None or self.served is None or self.served.model is None:
            return None
        half = self.os.mean - self.os.lo if self.error > 0 else self.os.hi - self.os.mean
        of_card = self.served.model.edge.misfit_sd.get("OS", 0.0)
        return math.sqrt(max(0.0, (self.error**2 - half**2) / _Z90**2 + of_card**2))

    @property
    def is_flagged(self) -> bool:
        return self.served is not None and Flag.OUT_OF_DISTRIBUTION in self.served.flags

    @property
    def verdict(self) -> str:
        """Hit or miss, or whether a required flag is set, or why the spectrum is set aside."""
        if self.set_aside:
            return f"set aside: {self.set_aside}"
        if self.known.must_be_flagged:
            return "flagged, as it must be" if self.is_flagged else "not flagged, but must be"
        if not self.known.is_judged or self.error is None:
            return ""
        return "hit" if abs(self.error) <= HIT_E else "miss"

    @property
    def calibrated_by(self) -> str:
        """Origin of the energy correction: ``foil``, ``shift`` (from the table or the config) or ``none``."""
        if self.served is None:
            return ""
        return "foil" if self.served.quantities["foil_shift_ev"] else "shift" if self.correction_ev else "none"

    @property
    def correction_ev(self) -> float | None:
        """Shift of the measured energies, eV, without FEFF's offset; None without an answer."""
        if self.served is None or self.served.model is None:
            return None
        shift_ev = self.served.quantities["energy_shift_ev"] - self.served.model.edge.feff_minus_experiment_ev
        return round(shift_ev, 6) + 0.0

    def row(self) -> dict[str, Any]:
        """Return the row of the table: its other columns, then those of the answer."""
        answer: dict[str, Any] = {"class": self.known.kind, "verdict": self.verdict}
        if self.served is not None and self.served.estimate is not None:
            for name, d in (("OS", self.os), ("CN", self.cn)):
                if d is not None:
                    answer |= {f"{name}_mean": d.mean, f"{name}_lo": d.lo, f"{name}_hi": d.hi}
                    answer |= {f"{name}_class": d.value, f"{name}_p": d.p}
            answer |= {"model": self.served.model.name if self.served.model else "", "error": self.error}
            answer |= {"inside": self.is_inside, "ood_score": self.served.estimate.ood_score}
            answer |= {"flagged": self.is_flagged, "flags": ", ".join(self.served.flags)}
            answer |= {"calibrated_by": self.calibrated_by, "correction_ev": self.correction_ev}
            answer |= {"e0_ev": self.served.quantities["e0_ev"]}
        return {name: cell for name, cell in self.known.columns.items() if name not in _OF_THE_ANSWER} | answer

    def for_card(self) -> StandardCard | None:
        """Return the entry for a model's card; None without an answer, or if neither it nor a flag can be judged."""
        if self.os is None or self.served is None or self.served.estimate is None:
            return None
        if self.known.os is None and not self.known.must_be_flagged:
            return None
        mean, lo, hi, score = (
            round(v, 2) for v in (self.os.mean, self.os.lo, self.os.hi, self.served.estimate.ood_score)
        )
        return StandardCard(
            compound=self.known.compound,
            known=self.known.os,
            mean=mean,
            lo=lo,
            hi=hi,
            score=score,
            flagged=self.is_flagged,
            verdict=self.verdict,
        )

    def _descriptor(self, name: str) -> DescriptorEstimate | None:
        if self.served is None or self.served.estimate is None:
            return None
        return self.served.estimate.descriptors.get(name)


@dataclass(frozen=True)
class Shares:
    """Numbers of standards with known oxidation state whose errors are within each tolerance."""

    group: str
    answered: int
    set_aside: int
    within_narrow: int
    hits: int
    within_wide: int
    inside: int
    flagged: int
    far_without_flag: int

    @classmethod
    def of(cls, group: str, judged: Sequence[Judged]) -> "Shares":
        errors = [(abs(j.error), j) for j in judged if j.error is not None]
        within = [sum(error <= limit for error, _ in errors) for limit in (NARROW_E, HIT_E, WIDE_E)]
        return cls(
            group,
            len(errors),
            sum(bool(j.set_aside) for j in judged),
            *within,
            inside=sum(bool(j.is_inside) for _, j in errors),
            flagged=sum(j.is_flagged for _, j in errors),
            far_without_flag=sum(error > FAR_E and not j.is_flagged for error, j in errors),
        )


def models_for(known: Sequence[KnownCompound], named: Sequence[str], config: Config) -> list[Estimator]:
    """Load a model for each element of the table: the named one, otherwise the shipped one.

    Parameters
    ----------
    known : sequence of KnownCompound
    named : sequence of str
        Names or folders of models.
    config : Config

    Returns
    -------
    list of Estimator
        At most one per element; none for an element without a model.

    Raises
    ------
    InputError
        Two of the named models are for one element, or no element of the table has a model.
    """
    wanted = elements_of(known)
    by_element: dict[str, str] = {}
    for name in named:
        absorber = cards.read_card(cards.find(name)).absorber
        if absorber in by_element:
            raise InputError(f"--model {by_element[absorber]}, {name}: both are for {absorber}, expected one of them")
        by_element[absorber] = name
        if absorber not in wanted:
            _log.warning("model not used: no standard of its element", model=name, element=absorber)
    shipped = {cards.read_card(folder).absorber: name for name, folder in cards.installed().items()}
    by_element = shipped | by_element
    used = tuple(by_element[element] for element in wanted if element in by_element)
    if not used:
        raise InputError(
            f"no model for {', '.join(wanted)}; shipped are {', '.join(shipped.values())}. Name one with --model"
        )
    fields = config.fields.model_copy(update={"element": None, "edge": None})
    model = config.model.model_copy(update={"use": used})
    return [*load_models(config.model_copy(update={"fields": fields, "model": model}))]


def read_standards(known: Iterable[KnownCompound], columns: Columns | None = None) -> list[Read]:
    """Read the spectra of the table; the reason replaces a spectrum that cannot be read."""
    read: list[Read] = []
    for one in known:
        try:
            read.append((one, one.spectrum(columns)))
        except InputError as error:
            read.append((one, str(error).removeprefix(f"{one.path}: ")))
    return read


def judge(
    read: Sequence[Read],
    models: Sequence[Estimator],
    config: Config,
    *,
    shifts: bool = False,
    energy_uncertainty: bool = True,
    done: Callable[[int], object] = lambda number: None,
) -> list[Judged]:
    """Serve each spectrum alone, as ``xas-agent infer FILE`` does, so that none depends on the foil of another.

    Parameters
    ----------
    read : sequence of (KnownCompound, FileSpectrum or str)
    models : sequence of Estimator
    config : Config
    shifts : bool
        Whether to add ``shift_ev`` of the table to the energies of spectra without a foil.
    energy_uncertainty : bool
        As for :func:`~xas_agent.app.jobs.files.answers_of`.
    done : callable
        Receives the number of spectra judged so far.

    Returns
    -------
    list of Judged
        In the order of ``read``.
    """
    by_element = {model.absorber: model for model in models}
    judged: list[Judged] = []
    for known, spectrum in read:
        answer: Answer | Refusal | str
        if isinstance(spectrum, str):
            answer = spectrum
        elif known.element not in by_element:
            answer = f"no model for {known.element}; name one with --model"
        elif "OS" not in (model := by_element[known.element]).units:
            answer = f"{model.name} does not estimate OS"
        else:
            settings = _settings(config, known, shifts)
            ((_, answer),) = answers_of([spectrum], [model], settings, energy_uncertainty=energy_uncertainty)
        judged.append(Judged(known, answer))
        done(len(judged))
    return judged


def _settings(config: Config, known: KnownCompound, shifts: bool) -> Config:
    changed: dict[str, Any] = {"fields": config.fields.model_copy(update={"element": known.element})}
    if shifts and known.shift_ev is not None:
        changed["alignment"] = config.alignment.model_copy(update={"energy_shift_ev": known.shift_ev})
    return config.model_copy(update=changed)


def shares_of(judged: Sequence[Judged]) -> list[Shares]:
    """Return the shares for all oxides, for the oxides of each valence, and for those of each absorber."""
    oxides = [j for j in judged if j.known.is_judged]
    groups = {"oxides": oxides, "of one valence": [j for j in oxides if float(j.known.os or 0).is_integer()]}
    groups |= {e: [j for j in oxides if j.known.element == e] for e in elements_of([j.known for j in oxides])}
    return [Shares.of(name, members) for name, members in groups.items() if members]


def misfit_sd_of(judged: Sequence[Judged]) -> float | None:
    """Return the standard deviation of a misfit, e, with which the intervals contain 90 % of the answered oxides.

    This is ``misfit_sd`` of OS in the domain of a card: the finite-sample quantile of the misfit that each oxide
    needs (split conformal prediction: Lei et al., J. Am. Stat. Assoc. 113, 1094, 2018). None for fewer than ten
    oxides.
    """
    needed = sorted(j.missing_sd for j in judged if j.known.is_judged and j.missing_sd is not None)
    if len(needed) < _FEWEST_FOR_MISFIT:
        return None
    return needed[min(math.ceil((len(needed) + 1) * 0.9), len(needed)) - 1]


def flags_of(judged: Sequence[Judged]) -> dict[str, tuple[int, int]]:
    """Return, by class, the number of flagged compounds among those that need a flag, and the number answered."""
    answered = [j for j in judged if j.known.must_be_flagged and j.served is not None]
    kinds = dict.fromkeys(j.known.kind for j in answered)
    return {
        kind: (
            sum(j.is_flagged for j in answered if j.known.kind == kind),
            sum(j.known.kind == kind for j in answered),
        )
        for kind in kinds
    }


def write_standards(folder: Path, judged: Sequence[Judged], models: Sequence[Estimator]) -> list[Path]:
    """Write ``standards.csv`` and ``standards.json``; return their paths."""
    make_folder(folder)
    rows = [j.row() for j in judged]
    table, tree = folder / "standards.csv", folder / "standards.json"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = TableWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    used = {
        m.absorber: {
            "name": m.name,
            "sha256": m.sha256,
            "feff_minus_experiment_ev": m.edge.feff_minus_experiment_ev,
        }
        for m in models
    }
    flags = {
        kind: {"flagged": flagged, "answered": answered} for kind, (flagged, answered) in flags_of(judged).items()
    }
    shares = [asdict(share) for share in shares_of(judged)]
    limits = {"hit": HIT_E, "within_narrow": NARROW_E, "within_wide": WIDE_E, "far_without_flag": FAR_E}
    content = {"limits_e": limits, "models": used, "shares": shares, "must_be_flagged": flags, "standards": rows}
    tree.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    return [table, tree]


def write_into_cards(judged: Sequence[Judged], models: Sequence[Estimator], named: Sequence[str]) -> list[Path]:
    """Write the standards of each model's absorber into its card and README; they replace earlier ones.

    Parameters
    ----------
    judged : sequence of Judged
    models : sequence of Estimator
        The models that answered.
    named : sequence of str
        Names or folders of the models that were chosen by the user; the others are shipped.

    Returns
    -------
    list of Path
        The cards.
    """
    folders = [*cards.installed().values(), *map(cards.find, named)]
    by_absorber = {cards.read_card(folder).absorber: folder for folder in folders}
    written: list[Path] = []
    for model in models:
        order = sorted(judged, key=lambda j: (j.known.must_be_flagged, j.known.os or 0.0, j.known.compound))
        rows = [row for j in order if j.known.element == model.absorber and (row := j.for_card())]
        if rows:
            folder = by_absorber[model.absorber]
            write_card_and_readme(folder, cards.read_card(folder).model_copy(update={"standards": tuple(rows)}))
            written.append(folder / "card.yaml")
    return written
