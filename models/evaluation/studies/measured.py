"""Judges a model by measured spectra: the standards of its card."""

import pandas as pd

from ...card import HIT_E, Card
from ..report import Section

_TEXT = f"""
All other sections judge the model on computed spectra. Measured spectra of known compounds are judged by
`xas-agent standards`; the table shows what the model's card states of them. A hit is a mean oxidation state within
{HIT_E:g} e of the known one.

The paper's own experimental test, cobalt oxides, cannot be repeated: no measured Co oxide was found in public data.
""".strip()


def measured(card: Card) -> Section:
    """Return the section of the report."""
    if not card.standards:
        return Section("Measured standards", f"{_TEXT}\n\nThe card of this model states no measured standards.")
    table = pd.DataFrame(
        {
            "compound": [s.compound for s in card.standards],
            "known OS (e)": [s.known for s in card.standards],
            "mean OS (e)": [s.mean for s in card.standards],
            "low (e)": [s.lo for s in card.standards],
            "high (e)": [s.hi for s in card.standards],
            "score": [s.score for s in card.standards],
            "flagged": [s.flagged for s in card.standards],
            "verdict": [s.verdict for s in card.standards],
        }
    )
    caption = "Mean oxidation state with its 90 % interval, and out-of-distribution score, above 1 flagged."
    return Section("Measured standards", _TEXT, {"standards": table}, captions={"standards": caption})
