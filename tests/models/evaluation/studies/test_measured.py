"""Measured standards in the report."""

import pandas as pd

from xas_agent.models.card import find, read_card
from xas_agent.models.evaluation.report import write
from xas_agent.models.evaluation.studies.measured import measured


def test_the_report_has_the_standards_of_the_card_and_says_what_cannot_be_tested(tmp_path):
    card = read_card(find("ni-k"))
    write(tmp_path, "Evaluation", "", [measured(card)])
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "cobalt oxides, cannot be repeated: no measured Co oxide was found in public data" in page
    table = pd.read_csv(tmp_path / "tables/standards.csv")
    assert table["compound"].tolist() == [s.compound for s in card.standards]
    assert table["verdict"].tolist().count("hit") == sum(s.verdict == "hit" for s in card.standards)
    assert table["flagged"].tolist() == [s.flagged for s in card.standards]


def test_a_card_without_standards_says_so():
    section = measured(read_card(find("ni-k")).model_copy(update={"standards": ()}))
    assert not section.tables
    assert "states no measured standards" in section.text
