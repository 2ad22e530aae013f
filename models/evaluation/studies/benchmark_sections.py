"""Sections of the report on the benchmark: the SPT against its competitors."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..competitors import AXES, CLEAN, CONDITIONS, SPT_NAME, Condition, Split
from ..report import (
    FigureOfMerit,
    Section,
    confusion_matrices,
    curves,
    parity,
    roc_curves,
    score_bars,
    tables,
)
from .benchmark import Benchmark
from .variant_sections import ablations, experts

_PAPER_METAL_SCORES = {
    "OS": 0.969,
    "CN": 0.98,
    "OCN": 0.983,
    "CN2": 0.811,
    "PSGO": 0.523,
    "NNRS": 0.764,
    "MOOD": 0.690,
}
"""Scores of the paper's Joint SPT on metal sites: other elements, twelve times the data, apparently split by site."""
_PAPER_OXYGEN_SCORES = {"CN": 0.951, "CN2": 0.827, "PSGO": 0.620, "NNRS": 0.846, "NNOSM": 0.938}
"""Scores of the paper's Joint SPT on oxygen sites."""
_NOISE_DESCRIPTORS = ("OS", "CN", "OCN")
"""Descriptors whose loss of score under noise is reported."""
_COMPARABLE_SCORE_GAP = 0.05
"""Largest gap between a competitor's clean score and the SPT's at which they are compared under noise."""


def sections(b: Benchmark) -> list[Section]:
    """Return the sections of the benchmark."""
    parts = [comparison(b)]
    if "site" in b.judged:
        parts.append(split_by_site(b))
    parts += [spt_details(b), robustness(b)]
    if b.experts:
        parts.append(experts(b))
    if b.ablations:
        parts.append(ablations(b))
    if len(b.searched):
        parts.append(tried_settings(b))
    return parts


def scores(b: Benchmark, split: Split) -> dict[str, dict[str, FigureOfMerit]]:
    """Return headline scores by competitor and descriptor."""
    truth, material = b.truth(split), b.material(split)
    return {
        name: {d: tables.bootstrap(truth, b.best(name, split=split), b.classes, material, d) for d in b.descriptors}
        for name in b.judged[split]
    }


def score_table(by_name: Mapping[str, Mapping[str, FigureOfMerit]]) -> pd.DataFrame:
    """Return the values without intervals, with a row per descriptor and a column per competitor."""
    return pd.DataFrame({n: {d: m.value for d, m in of.items()} for n, of in by_name.items()}).rename_axis(
        "descriptor"
    )


def best_competitor(by_name: Mapping[str, Mapping[str, FigureOfMerit]], d: str) -> str:
    """Return the name of the best competitor of the SPT on one descriptor."""
    return max((n for n in by_name if n != SPT_NAME), key=lambda n: by_name[n][d].value)


def comparison(b: Benchmark) -> Section:
    """Compare the shipped SPT with all competitors on unseen materials."""
    by_name = scores(b, "material")
    rivals = {d: best_competitor(by_name, d) for d in b.descriptors}
    gaps = {d: b.against(rivals[d], d) for d in b.descriptors}
    paper = _PAPER_OXYGEN_SCORES if b.plan.config.absorber == "O" else _PAPER_METAL_SCORES
    table = pd.DataFrame(
        {
            "SPT": {d: by_name[SPT_NAME][d].value for d in b.descriptors},
            "best competitor": rivals,
            "its score": {d: by_name[rivals[d]][d].value for d in b.descriptors},
            "SPT ahead by": {d: gap.value for d, gap in gaps.items()},
            "low": {d: gap.lo for d, gap in gaps.items()},
            "high": {d: gap.hi for d, gap in gaps.items()},
            "paper (other data)": {d: paper.get(d, np.nan) for d in b.descriptors},
        }
    ).rename_axis("descriptor")
    sure = [d for d, gap in gaps.items() if gap.lo > 0]
    behind = [d for d, gap in gaps.items() if gap.value <= 0]
    single = {
        n: {d: float(np.mean([b.score(p, d) for p in j.singles])) for d in b.descriptors}
        for n, j in b.judged["material"].items()
        if j.singles
    }
    columns = {"parameters": "parameters", "seconds": "training / s", "latency_ms": "one spectrum / ms"}
    cost = {n: {c: getattr(j, k) for k, c in columns.items()} for n, j in b.judged["material"].items()}
    material = b.material("material")
    text = f"""
The scores are weighted F1 of classified and R² of regressed descriptors on {len(material)} validation sites of
{len(np.unique(material))} materials, on which no model was trained. Intervals are 95 %, by resampling materials;
differences are paired. The SPT is significantly better than the best competitor (the whole interval above 0) on
**{len(sure)} of {len(b.descriptors)}** descriptors ({", ".join(sure) or "none"}), and its score is not higher on
{", ".join(behind) or "none"}.

The SPT is the shipped model, an ensemble of {b.shipped_members}. Its settings were chosen with knowledge of these
sites, those of the competitors without. Each competing network stands for {b.settings.members} trained networks whose
answers are averaged in the same way; the last table gives the mean of single networks. Training times are on one
thread, of all networks together. The paper's figures are for orientation only: other elements, twelve times the data,
and apparently a split by site.
"""
    return Section(
        "The SPT against its competitors",
        text,
        {
            "spt-against-best": table,
            "scores-by-material": score_table(by_name),
            "cost": pd.DataFrame.from_dict(cost, orient="index").rename_axis("competitor"),
            "scores-single-networks": pd.DataFrame(single).rename_axis("descriptor"),
        },
        {"scores-by-material": score_bars(by_name, b.classes)},
        {
            "spt-against-best": "The SPT against the best competitor of each descriptor.",
            "scores-by-material": "Split by material.",
            "scores-single-networks": "Mean over single networks and single forests.",
            "cost": "Cost of each competitor.",
        },
    )


def split_by_site(b: Benchmark) -> Section:
    """Compare all competitors on randomly drawn sites, as in the paper."""
    by_name = scores(b, "site")
    return Section(
        "The same, split by site",
        "Here as many sites are drawn at random, apparently as in the paper, and single networks are compared. "
        "Sites of one structure are on both sides of the split. They are near copies of each other, so the scores "
        "do not hold for new materials.",
        {"scores-by-site": score_table(by_name)},
        {"scores-by-site": score_bars(by_name, b.classes)},
        {"scores-by-site": "Split by random site, where other sites of the same structure are known from training."},
    )


def spt_details(b: Benchmark) -> Section:
    """Report all figures of merit of the SPT, its confusions, and its scores by group of sites."""
    truth, predictions = b.truth("material"), b.judged["material"][SPT_NAME].predictions["clean"]
    groups = {slug: d for slug, d in (("coordination", "CN"), ("oxidation-state", "OS")) if d in truth}
    by_group = {
        f"by-{slug}": tables.by_group(truth, predictions, b.classes, truth[d].astype(object))
        for slug, d in groups.items()
    }
    kind = b.plan.data.kind[b.plan.judged]
    if (kind != "").any():
        by_group["by-kind"] = tables.by_group(truth, predictions, b.classes, kind)
    best = predictions.best(b.classes)
    classified = [d for d in b.plan.config.classified if d in b.classes]
    pairs = {d: (truth[d], best[d]) for d in b.plan.config.regressed if d in truth}
    units = {d: b.plan.config.units.get(d.removesuffix("_mean"), "") for d in pairs}
    return Section(
        "The SPT by group of sites",
        "All figures of merit on the validation sites, then headline scores by first-shell coordination number and "
        "by oxidation state. Groups of fewer than ten sites are too small for a reliable score and are marked.",
        {
            "spt-all-figures": tables.descriptor_scores(truth, predictions, b.classes, b.material("material")),
            **by_group,
        },
        {
            "confusion": confusion_matrices(
                {d: tables.confusion(d, truth, predictions, b.classes) for d in classified}
            ),
            "roc": roc_curves({d: tables.roc(d, truth, predictions, b.classes) for d in classified}),
            "parity": parity(pairs, units),
        },
        {
            "spt-all-figures": "All figures of merit; low and high are the 95 % interval of the headline score.",
            "by-coordination": "Headline scores by coordination number.",
            "by-oxidation-state": "Headline scores by oxidation state.",
            "confusion": "Rows are true classes, columns predicted ones.",
            "roc": "Each class against the rest.",
            "parity": "Predicted against true values.",
        },
    )


def robustness(b: Benchmark) -> Section:
    """Report scores under the disturbances of a beamline."""
    rows = [
        {
            "competitor": name,
            "disturbance": c.kind,
            "amount": c.amount,
            "descriptor": d,
            "score": b.score(j.predictions[c.name], d),
        }
        for name, j in b.judged["material"].items()
        for c in CONDITIONS
        for d in b.descriptors
    ]
    table = pd.DataFrame(rows)
    clean = table[table.disturbance == "clean"]
    drawn: dict[str, Figure] = {}
    for kind, xlabel in AXES.items():
        with_zero = pd.concat([clean.assign(disturbance=kind), table[table.disturbance == kind]])
        drawn[f"robust-{kind}"] = curves(pd.DataFrame(with_zero), "competitor", "amount", xlabel, b.classes)
    lost = noise_losses(b)
    worst = max(lost["SPT loses"].tolist(), default=np.nan)
    return Section(
        "Robustness",
        "The validation spectra are disturbed as on a beamline and aligned again: Gaussian noise of up to 5 % of "
        "the edge step (paper, section 4.4), energy offset, broadening, a slope left by the normalisation, a single "
        "glitch, coarser sampling. All competitors receive the same disturbed spectra and are not trained again. At "
        f"a noise of 2 % the SPT loses at most {worst:.3f} weighted F1 on {', '.join(lost.index)}; the table "
        f"compares it with competitors whose clean score is within {_COMPARABLE_SCORE_GAP} of its own.",
        {"noise-loss": lost, "robustness": table.set_index(["competitor", "disturbance", "amount", "descriptor"])},
        drawn,
        {
            "noise-loss": "Weighted F1 lost at σ = 0.02.",
            "robustness": "All scores of the figures.",
            **{f"robust-{k}": f"Scores against {x}." for k, x in AXES.items()},
        },
    )


def noise_losses(b: Benchmark) -> pd.DataFrame:
    """Return the losses of score at σ = 0.02, of the SPT and of the most robust comparable competitor."""
    rows: dict[str, dict[str, object]] = {}
    for d in (d for d in _NOISE_DESCRIPTORS if d in b.descriptors):
        clean, noisy = (
            {n: b.score(j.predictions[c], d) for n, j in b.judged["material"].items()}
            for c in (CLEAN.name, Condition("noise", 0.02).name)
        )
        loss = {n: clean[n] - noisy[n] for n in clean if clean[SPT_NAME] - clean[n] <= _COMPARABLE_SCORE_GAP}
        spt_loss = loss.pop(SPT_NAME)
        most_robust = min(loss, key=lambda n: loss[n], default="none")
        rows[d] = {
            "SPT loses": spt_loss,
            "most robust competitor": most_robust,
            "it loses": loss.get(most_robust, np.nan),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("descriptor")


def tried_settings(b: Benchmark) -> Section:
    """Report the search over each competitor's main settings."""
    return Section(
        "Tried settings",
        "Each competitor was trained with every setting below on five sixths of the training materials and judged on "
        "the other sixth by the mean headline score over the judged descriptors. The comparison above uses the best "
        "setting. The SPT's settings are those of its config, chosen with knowledge of the validation sites.",
        {"search": b.searched},
        captions={"search": "Settings of the competitors."},
    )
