"""What the benchmark's trials say, in words, tables and figures."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..competitors import AXES, CLEAN, CONDITIONS, SPT_NAME, Condition, Split
from ..contract import Predictions
from ..report import (
    FigureOfMerit,
    Section,
    confusion_matrices,
    curves,
    differences,
    parity,
    roc_curves,
    score_bars,
    tables,
)
from .benchmark import Benchmark

PAPER = {"OS": 0.969, "CN": 0.98, "OCN": 0.983, "CN2": 0.811, "PSGO": 0.523, "NNRS": 0.764, "MOOD": 0.690}
"""Joint SPT on metal sites; other elements, twelve times the data, split by site as far as the text tells."""
PAPER_OXYGEN = {"CN": 0.951, "CN2": 0.827, "PSGO": 0.620, "NNRS": 0.846, "NNOSM": 0.938}
"""The same on oxygen sites."""
STEADY = ("OS", "CN", "OCN")
"""Descriptors whose loss under noise is judged."""
NEAR = 0.05
"""A competitor this close to the SPT when clean is compared with it under noise."""


def sections(b: Benchmark) -> list[Section]:
    """All that the benchmark has to say."""
    found = [comparison(b)]
    if "site" in b.judged:
        found.append(split_by_site(b))
    found += [closer_look(b), robustness(b)]
    if b.experts:
        found.append(experts(b))
    if b.ablations:
        found.append(ablations(b))
    if len(b.searched):
        found.append(settings_tried(b))
    return found


def scores(b: Benchmark, split: Split) -> dict[str, dict[str, FigureOfMerit]]:
    """Headline scores by competitor and descriptor."""
    truth, material = b.truth(split), b.material(split)
    return {
        name: {d: tables.bootstrap(truth, b.best(name, split=split), b.classes, material, d) for d in b.descriptors}
        for name in b.judged[split]
    }


def wide(found: Mapping[str, Mapping[str, FigureOfMerit]]) -> pd.DataFrame:
    """Values only, a row per descriptor."""
    return pd.DataFrame({n: {d: m.value for d, m in of.items()} for n, of in found.items()}).rename_axis("descriptor")


def strongest(found: Mapping[str, Mapping[str, FigureOfMerit]], d: str) -> str:
    """The best competitor of the SPT on one descriptor."""
    return max((n for n in found if n != SPT_NAME), key=lambda n: found[n][d].value)


def comparison(b: Benchmark) -> Section:
    """The shipped SPT against all competitors on materials that none has seen."""
    found = scores(b, "material")
    rivals = {d: strongest(found, d) for d in b.descriptors}
    gaps = {d: b.against(rivals[d], d) for d in b.descriptors}
    paper = PAPER_OXYGEN if b.plan.config.absorber == "O" else PAPER
    table = pd.DataFrame(
        {
            "SPT": {d: found[SPT_NAME][d].value for d in b.descriptors},
            "best competitor": rivals,
            "its score": {d: found[rivals[d]][d].value for d in b.descriptors},
            "SPT ahead by": {d: gap.value for d, gap in gaps.items()},
            "low": {d: gap.lo for d, gap in gaps.items()},
            "high": {d: gap.hi for d, gap in gaps.items()},
            "paper (other data)": {d: paper.get(d, np.nan) for d in b.descriptors},
        }
    ).rename_axis("descriptor")
    sure = [d for d, gap in gaps.items() if gap.lo > 0]
    behind = [d for d, gap in gaps.items() if gap.value <= 0]
    single = {
        n: {d: float(np.mean([score_of(b, p, d) for p in j.singles])) for d in b.descriptors}
        for n, j in b.judged["material"].items()
        if j.singles
    }
    columns = {"parameters": "parameters", "seconds": "training / s", "latency_ms": "one spectrum / ms"}
    cost = {n: {c: getattr(j, k) for k, c in columns.items()} for n, j in b.judged["material"].items()}
    material = b.material("material")
    text = f"""
Weighted F1 of classified and R² of regressed descriptors on {len(material)} validation sites of
{len(np.unique(material))} materials, none of which was trained on. Intervals are 95 %, by resampling materials;
differences are paired. The SPT is ahead of the best competitor, with the whole interval above 0, on **{len(sure)} of
{len(b.descriptors)}** ({", ".join(sure) or "none"}), and behind it on {", ".join(behind) or "none"}.

The SPT is the shipped model, an ensemble of {b.shipped_members}, whose settings were chosen by earlier looks at these
sites, those of the competitors were not. Each competing network stands for {b.settings.members} trained ones whose
answers are averaged likewise; the last table has the mean of single ones. Training times are on one thread, of all
networks together. The paper's figures are for orientation: other elements, twelve times the data, and a split by site
as far as the text tells.
"""
    return Section(
        "The SPT against its competitors",
        text,
        {
            "spt-against-best": table,
            "scores-by-material": wide(found),
            "cost": pd.DataFrame.from_dict(cost, orient="index").rename_axis("competitor"),
            "scores-single-networks": pd.DataFrame(single).rename_axis("descriptor"),
        },
        {"scores-by-material": score_bars(found, b.classes)},
        {
            "spt-against-best": "The SPT against the best competitor of each descriptor.",
            "scores-by-material": "Split by material.",
            "scores-single-networks": "Mean over single networks and single forests.",
            "cost": "What each costs.",
        },
    )


def split_by_site(b: Benchmark) -> Section:
    """All competitors on randomly drawn sites, as in the paper."""
    found = scores(b, "site")
    return Section(
        "The same, split by site",
        "As many sites, drawn at random (the paper's way, as far as its text tells): sites of one structure stand "
        "on both sides. They are near copies of each other, so the figures say little about a new material. Single "
        "networks.",
        {"scores-by-site": wide(found)},
        {"scores-by-site": score_bars(found, b.classes)},
        {"scores-by-site": "Split by random site; what leaks is the rest of the structure."},
    )


def score_of(b: Benchmark, said: Predictions, d: str) -> float:
    """Headline score of predictions on the validation sites."""
    return tables.score(d, b.truth("material"), said.best(b.classes), b.classes)


def closer_look(b: Benchmark) -> Section:
    """All figures of merit of the SPT, its confusions, and where it is good and where not."""
    truth, said = b.truth("material"), b.judged["material"][SPT_NAME].predictions["clean"]
    groups = {slug: d for slug, d in (("coordination", "CN"), ("oxidation-state", "OS")) if d in truth}
    found = {
        f"by-{slug}": tables.by_group(truth, said, b.classes, truth[d].astype(object)) for slug, d in groups.items()
    }
    kind = b.plan.data.kind[b.plan.judged]
    if (kind != "").any():
        found["by-kind"] = tables.by_group(truth, said, b.classes, kind)
    best = said.best(b.classes)
    units = b.plan.config.units
    classified = [d for d in b.plan.config.classified if d in b.classes]
    pairs = {d: (truth[d], best[d]) for d in b.plan.config.regressed if d in truth}
    return Section(
        "Where the SPT is good and where not",
        "Every figure of merit on the validation sites, then by first-shell coordination number and by oxidation "
        "state. Groups of fewer than ten sites say little and are marked.",
        {"spt-all-figures": tables.descriptor_scores(truth, said, b.classes, b.material("material")), **found},
        {
            "confusion": confusion_matrices({d: tables.confusion(d, truth, said, b.classes) for d in classified}),
            "roc": roc_curves({d: tables.roc(d, truth, said, b.classes) for d in classified}),
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
    """Scores under the disturbances of a beamline."""
    rows = [
        {
            "competitor": name,
            "disturbance": c.kind,
            "amount": c.amount,
            "descriptor": d,
            "score": score_of(b, j.predictions[c.name], d),
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
        "The validation sites again, disturbed as a beamline disturbs and aligned again: Gaussian noise from 0 to "
        "5 % of the edge step (paper 4.4), energy offset, broadening, a slope left by the normalisation, a single "
        "glitch, coarser sampling. All competitors are given the same disturbed spectra; none is trained anew. At "
        f"noise of 2 % the SPT loses at most {worst:.3f} weighted F1 on {', '.join(lost.index)}; competitors are "
        f"compared with it that come within {NEAR} of it when clean.",
        {"noise-loss": lost, "robustness": table.set_index(["competitor", "disturbance", "amount", "descriptor"])},
        drawn,
        {
            "noise-loss": "Weighted F1 lost at σ = 0.02.",
            "robustness": "All scores of the figures.",
            **{f"robust-{k}": f"Scores against {x}." for k, x in AXES.items()},
        },
    )


def noise_losses(b: Benchmark) -> pd.DataFrame:
    """What is lost at σ = 0.02 by the SPT, and by the steadiest competitor that is near it when clean."""
    rows: dict[str, dict[str, object]] = {}
    for d in (d for d in STEADY if d in b.descriptors):
        clean, noisy = (
            {n: score_of(b, j.predictions[c], d) for n, j in b.judged["material"].items()}
            for c in (CLEAN.name, Condition("noise", 0.02).name)
        )
        loss = {n: clean[n] - noisy[n] for n in clean if clean[SPT_NAME] - clean[n] <= NEAR}
        own = loss.pop(SPT_NAME)
        steadiest = min(loss, key=lambda n: loss[n], default="none")
        rows[d] = {"SPT loses": own, "steadiest near it": steadiest, "it loses": loss.get(steadiest, np.nan)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("descriptor")


def compared(b: Benchmark, said: Predictions, d: str) -> FigureOfMerit:
    """Score of a variant of one network less that of the full one with the same seed."""
    full = b.judged["material"][SPT_NAME].singles[0].best(b.classes)
    variant = said.best(b.classes)
    return tables.paired_bootstrap(b.truth("material"), variant, full, b.classes, b.material("material"), d)


def experts(b: Benchmark) -> Section:
    """One SPT per descriptor against one for all (paper 5.3)."""
    joint = b.judged["material"][SPT_NAME]
    one = joint.seconds / b.shipped_members
    rows: dict[str, dict[str, float]] = {}
    for d, outcome in b.experts.items():
        said = outcome.predictions["clean"]
        gap = compared(b, said, d)
        rows[d] = {
            "Expert": score_of(b, said, d),
            "Joint, same seed": score_of(b, joint.singles[0], d),
            "Joint, mean of seeds": float(np.mean([score_of(b, p, d) for p in joint.singles])),
            "Expert ahead by": gap.value,
            "low": gap.lo,
            "high": gap.hi,
            "training / s": outcome.seconds,
        }
    total = sum(r["training / s"] for r in rows.values())
    worse = [d for d, r in rows.items() if r["Expert"] - r["Joint, mean of seeds"] > 0.01]
    ahead = {"Expert": {d: compared(b, o.predictions["clean"], d) for d, o in b.experts.items()}}
    return Section(
        "Expert against Joint",
        f"One SPT per descriptor against one for all, single networks on the same rows. Training the {len(rows)} "
        f"Experts took {total:.0f} s, a Joint one {one:.0f} s ({one / total:.0%}); serving the Experts costs "
        f"{len(rows)} forward passes instead of one. The Joint SPT is more than 0.01 below its Expert on "
        f"{', '.join(worse) or 'no descriptor'} (mean over its seeds).",
        {"experts": pd.DataFrame.from_dict(rows, orient="index").rename_axis("descriptor")},
        {"experts": differences(ahead, "Expert − Joint")},
        {"experts": "Expert − Joint on the same seed, with 95 % intervals over materials."},
    )


def ablations(b: Benchmark) -> Section:
    """What each part of the SPT earns."""
    found = {n: {d: compared(b, o.predictions["clean"], d) for d in b.descriptors} for n, o in b.ablations.items()}
    mean = {n: float(np.mean([m.value for m in of.values()])) for n, of in found.items()}
    ordered = sorted(found, key=lambda n: mean[n])
    rows = {
        n: {**{d: m.value for d, m in found[n].items()}, "mean": mean[n], "training / s": b.ablations[n].seconds}
        for n in ordered
    }
    seeds = [np.mean([score_of(b, p, d) for d in b.descriptors]) for p in b.judged["material"][SPT_NAME].singles]
    spread = f"{np.ptp(seeds):.3f}" if len(seeds) > 1 else "an unknown amount"
    return Section(
        "What each part earns",
        "Single networks, one seed, each trained with one thing changed, against the full one on the same seed. Mean "
        f"over the judged descriptors: {'; '.join(f'{n} {mean[n]:+.3f}' for n in ordered)}. That mean differs by "
        f"{spread} between seeds of the full network: what is smaller is noise.",
        {"ablations": pd.DataFrame.from_dict(rows, orient="index").rename_axis("variant")},
        {"ablations": differences({n: found[n] for n in ordered})},
        {"ablations": "Headline score less that of the full network."},
    )


def settings_tried(b: Benchmark) -> Section:
    """The search over each competitor's main settings."""
    return Section(
        "Settings tried",
        "Each competitor was trained with every setting below on five sixths of the training materials and judged on "
        "the other sixth, mean headline score over the judged descriptors; the best is what was compared above. The "
        "SPT's own settings are those of its config, chosen by earlier looks at the validation sites.",
        {"search": b.searched},
        captions={"search": "Settings of the competitors."},
    )
