"""Writes a model card as Markdown."""

from pathlib import Path

from .card import HIT_E, Card, DescriptorCard, StandardCard, write_card

MEANINGS = {
    "OS": "oxidation state of the absorber",
    "CN": "first-shell coordination number",
    "OCN": "oxygen neighbours in the first shell",
    "CN2": "atoms bonded to the first shell (second-shell coordination)",
    "PSGO": "order of the crystal's point group (symmetry)",
    "NNRS": "spread (standard deviation) of the first-shell bond lengths",
    "MOOD": "shortest O–O distance in the first shell",
    "NNOSM": "mean oxidation state of the first neighbours",
    "mean_bond": "mean first-shell bond length",
    "OS_mean": "mean oxidation state over the absorber's sites",
}
"""Meaning of each descriptor, in a few words."""


def readable(card: Card) -> str:
    """Return the README of a model folder: training data, performance, limits, licence and citation, as Markdown."""
    treatment = "training includes" if card.domain.step_ev is None else "alignment corrects"
    t, offset, grid, domain = card.training, card.feff_minus_experiment, card.grid, card.domain
    low, high = card.edge_ev + grid.start_ev, card.edge_ev + grid.stop_ev
    coverage = card.descriptors[0].interval.coverage
    lines = [
        f"# {card.name}",
        "",
        f"Structural descriptors of a {card.absorber} site from its {card.edge}-edge XANES: a Spectral Pattern "
        f"Translator, {t['members']} networks side by side, {t['parameters']:,} weights."
        + (f" Each is the mean of {t['runs']} trainings." if t.get("runs", 1) > 1 else ""),
        "",
        f"- **Input**: a spectrum from {low:g} to {high:g} eV on FEFF's energy scale, edge step 1; xas-agent "
        "calibrates, normalises and resamples a measured one.",
        f"- **Trained on** {t['rows']} sites of {t['materials']} materials: {'; '.join(t['sources'])}."
        + (f" Fine-tuned from `{t['pretrained']}`." if t["pretrained"] else ""),
        f"- **FEFF − experiment**: {offset.value_ev:g} ± {offset.sd_ev:g} eV. Source: {offset.source}.",
        f"- **Measurement against FEFF**: energies from the edge scaled by {domain.scale:g} ± {domain.scale_sd:g}, "
        f"amplitude {domain.amplitude:g} ± {domain.amplitude_sd:g}, which {treatment}, and a Gaussian of σ "
        f"{domain.broadening_ev:g} ± {domain.broadening_sd_ev:g} eV, which training includes. Source: "
        f"{domain.source}.",
        f"- **Out-of-distribution spectra** are flagged: {card.ood}.",
        f"- **File**: SHA-256 `{card.sha256}`.",
        "",
        "## Descriptors and performance",
        "",
        f"Evaluated on {card.metrics['on']}. Intervals contain {coverage:.0%} of the held-out rows that calibrate "
        "them.",
        "",
        "| descriptor | meaning | unit or classes | score | coverage of intervals | for mixtures of sites |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(card, d) for d in card.descriptors]
    if "OS_mean" in card.metrics:
        lines += ["", f"Mean oxidation state: {_figure(card.metrics['OS_mean'])}{_mae(card)}."]
    if card.standards:
        lines += _standards(card)
    lines += ["", "## Limits", ""]
    single = [d.name for d in card.descriptors if not d.mixture]
    lines += [
        "- The training spectra are computed. Measured spectra differ in energy calibration, normalisation and "
        "broadening; the intervals cover only the disturbances that training includes.",
    ]
    if single:
        lines.append(
            f"- {', '.join(single)} have no meaning for a mixture of sites, as in operando spectra, and are shown "
            "only on request."
        )
    lines += [f"- {limit}" for limit in card.limits]
    lines += ["", "## Licence and citation", "", f"{card.licence}.", "", *(f"- {c}" for c in card.cite), ""]
    return "\n".join(lines)


def write_card_and_readme(folder: Path, card: Card) -> None:
    """Write ``card.yaml`` and ``README.md`` of a model folder."""
    write_card(folder, card)
    (folder / "README.md").write_text(readable(card), encoding="utf-8")


def _standards(card: Card) -> list[str]:
    judged = [s for s in card.standards if s.verdict in ("hit", "miss") and s.known is not None]
    hits = sum(s.verdict == "hit" for s in judged)
    inside = sum(s.lo <= s.known <= s.hi for s in judged if s.known is not None)
    shares = f" Of {len(judged)} oxides {hits} are hits, and {inside} lie in the interval." if judged else ""
    return [
        "",
        "## Measured standards",
        "",
        "Measured spectra of known compounds, as `xas-agent standards` serves them, with energies as recorded or "
        f"corrected by the foil in the file. A hit is a mean oxidation state within {HIT_E:g} e of the known one."
        f"{shares}",
        "",
        "| compound | known OS / e | OS_mean / e (90 % interval) | score | verdict |",
        "|---|---|---|---|---|",
        *map(_standard, card.standards),
    ]


def _standard(s: StandardCard) -> str:
    known = "–" if s.known is None else f"{s.known:g}"
    compound = s.compound.replace("|", r"\|")
    flagged = ["flagged"] if s.flagged and "flagged" not in s.verdict else []
    verdict = ", ".join(filter(None, [s.verdict, *flagged])) or "–"
    return f"| {compound} | {known} | {s.mean:.2f} ({s.lo:.2f}…{s.hi:.2f}) | {s.score:.2f} | {verdict} |"


def _row(card: Card, d: DescriptorCard) -> str:
    metric = card.metrics.get(d.name, {})
    held = card.metrics.get(d.mean_head or d.name, {}).get("interval_holds")
    values = ", ".join(map(str, d.classes)) if d.classes else d.unit
    coverage = f"{held:.1%}" if held is not None else "–"
    return (
        f"| {d.name} | {MEANINGS.get(d.name, '')} | {values} | {_figure(metric)} | {coverage} | "
        f"{'yes' if d.mixture else 'no'} |"
    )


def _figure(metric: dict[str, float | str]) -> str:
    if not metric:
        return "–"
    error = f" ± {metric['standard_error']:.3f}" if "standard_error" in metric else ""
    return f"{str(metric['metric']).replace('R2', 'R²')} {metric['value']:.3f}{error}"


def _mae(card: Card) -> str:
    mae = card.metrics.get("OS_mean_MAE_e")
    return f", mean absolute error {mae:.2f} e" if mae is not None else ""
