"""A card in one screen: it fits, whatever the model, and says what decides about its use."""

import re

import pytest

from xas_agent.models import card as cards
from xas_agent.models.glance import LINES, WIDTH, glance


@pytest.mark.parametrize("name", cards.installed())
def test_every_card_fits_a_screen(name):
    card = cards.read_card(cards.find(name))
    lines = glance(card).splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= WIDTH
    text = "\n".join(lines)
    for d in card.descriptors:
        assert re.search(rf"^{d.name}\*? .*[\d.]+$", text, re.MULTILINE), d.name
    assert f"{card.feff_minus_experiment.value_ev:g} ± {card.feff_minus_experiment.sd_ev:g} eV" in text
    assert "limits" in text
    assert f"{name} --full" in text


def test_what_measured_standards_say_is_counted():
    card = cards.read_card(cards.find("fe-k"))
    verdicts = [s.verdict for s in card.standards]
    hits, oxides = verdicts.count("hit"), verdicts.count("hit") + verdicts.count("miss")
    assert f"{hits} of {oxides} oxides" in glance(card)
    assert "no oxide" in glance(cards.read_card(cards.find("co-k")))
    assert "no standard has judged it" in glance(cards.read_card(cards.find("o-k")))


def test_long_texts_are_cut_at_a_word():
    card = cards.read_card(cards.find("ni-k")).model_copy(update={"limits": ("word " * 500,)})
    lines = glance(card).splitlines()
    assert len(lines) == LINES
    assert any(line.endswith("word …") for line in lines)
