"""A model card as its users read it."""

from .card import Card, DescriptorCard

MEANING = {
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


def readable(card: Card) -> str:
    """Markdown: what the model is, was trained on, is good for and not, with its figures, licence and citation."""
    undone = "training rehearses" if card.domain.step_ev is None else "alignment undoes"
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
        f"- **FEFF − experiment**: {offset.value_ev:g} ± {offset.sd_ev:g} eV, from {offset.source}.",
        f"- **Measurement against FEFF**: energies from the edge scaled by {domain.scale:g} ± {domain.scale_sd:g}, "
        f"amplitude {domain.amplitude:g} ± {domain.amplitude_sd:g}, which {undone}, and a Gaussian of σ "
        f"{domain.broadening_ev:g} ± {domain.broadening_sd_ev:g} eV, which training rehearses; from {domain.source}.",
        f"- **Out-of-distribution spectra** are flagged: {card.ood}.",
        f"- **File**: SHA-256 `{card.sha256}`.",
        "",
        "## What it says, and how well",
        "",
        f"Figures on {card.metrics['on']}. Intervals are made to hold {coverage:.0%} of rows that a network was not "
        "trained on.",
        "",
        "| descriptor | meaning | unit or classes | figure | intervals held | for mixtures of sites |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(card, d) for d in card.descriptors]
    if "OS_mean" in card.metrics:
        lines += ["", f"Mean oxidation state: {_figure(card.metrics['OS_mean'])}{_mae(card)}."]
    lines += ["", "## Where not to trust it", ""]
    single = [d.name for d in card.descriptors if not d.mixture]
    lines += [
        "- It has learnt from computed spectra. A measured one differs by its energy calibration, its normalisation "
        "and its broadening; the interval covers only what the training spectra were disturbed by.",
    ]
    if single:
        lines.append(
            f"- {', '.join(single)} mean nothing for a mixture of sites, as operando spectra are, and are not shown "
            "for them unless asked for."
        )
    lines += [f"- {limit}" for limit in card.limits]
    lines += ["", "## Licence and citation", "", f"{card.licence}.", "", *(f"- {c}" for c in card.cite), ""]
    return "\n".join(lines)


def _row(card: Card, d: DescriptorCard) -> str:
    found = card.metrics.get(d.name, {})
    held = card.metrics.get(d.mean_head or d.name, {}).get("interval_holds")
    what = ", ".join(map(str, d.classes)) if d.classes else d.unit
    shares = f"{held:.1%}" if held is not None else "–"
    return (
        f"| {d.name} | {MEANING.get(d.name, '')} | {what} | {_figure(found)} | {shares} | "
        f"{'yes' if d.mixture else 'no'} |"
    )


def _figure(found: dict[str, float | str]) -> str:
    if not found:
        return "–"
    error = f" ± {found['standard_error']:.3f}" if "standard_error" in found else ""
    return f"{str(found['metric']).replace('R2', 'R²')} {found['value']:.3f}{error}"


def _mae(card: Card) -> str:
    off = card.metrics.get("OS_mean_MAE_e")
    return f", mean absolute error {off:.2f} e" if off is not None else ""
