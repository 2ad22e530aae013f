"""The model card, and what is refused before a model is loaded."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from xas_agent.models import card as cards
from xas_agent.models.card import ModelError
from xas_agent.models.readable import readable

SHIPPED = cards.installed()
MAX_BYTES = 4_000_000


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of a shipped model, to be spoilt."""
    return Path(shutil.copytree(SHIPPED["co-k"], tmp_path / "mine"))


def rewrite(folder: Path, **changes: Any) -> None:
    """Change keys of a card; None takes one out."""
    card = yaml.safe_load((folder / "card.yaml").read_text()) | changes
    kept = {k: v for k, v in card.items() if v is not None}
    (folder / "card.yaml").write_text(yaml.safe_dump(kept, allow_unicode=True))


OXYGEN = {"CN", "CN2", "PSGO", "NNRS", "NNOSM", "mean_bond"}
METAL = {"OS", "CN", "CN2", "OCN", "PSGO", "NNRS", "MOOD", "mean_bond"}


def test_nine_models_are_shipped_and_small():
    assert list(SHIPPED) == ["co-k", "cr-k", "cu-k", "fe-k", "mn-k", "ni-k", "o-k", "ti-k", "v-k"]
    assert sum((folder / "model.ts").stat().st_size for folder in SHIPPED.values()) <= 16e6


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_matches_its_card(name):
    card = cards.verify(SHIPPED[name])
    assert card.name == name == f"{card.absorber}-{card.edge}".lower()
    assert (SHIPPED[name] / "model.ts").stat().st_size <= MAX_BYTES
    assert {d.name for d in card.descriptors} >= (OXYGEN if name == "o-k" else METAL)
    for d in card.descriptors:
        assert (d.kind == "classified") == bool(d.classes)
        assert d.interval.scale > 0
        assert d.mean_head in (None, *card.regressed)
        assert d.name in card.metrics
    assert card.feff_minus_experiment.sd_ev > 0
    assert card.licence
    assert card.cite


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_is_written_as_it_is_read(name, tmp_path):
    card = cards.read_card(SHIPPED[name])
    cards.write_card(tmp_path, card)
    assert cards.read_card(tmp_path) == card


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_card_states_its_standards_and_its_readme_is_of_today(name):
    card = cards.read_card(SHIPPED[name])
    assert bool(card.standards) == (name != "o-k")  # no measured O K-edge is at hand
    assert any("Experimental" in limit for limit in card.limits) == (name == "o-k")
    assert "not flagged, but must be" not in [s.verdict for s in card.standards]
    assert (SHIPPED[name] / "README.md").read_text(encoding="utf-8") == readable(card)


def test_what_shipped_models_hardly_know_by_their_validation_is_not_shown():
    """NNRS of Co has an R² of −0.01, MOOD of Fe of 0.07."""
    found = {name: {*cards.read_card(folder).hardly_known} for name, folder in SHIPPED.items()}
    named = {"co-k": {"NNRS"}, "cr-k": {"NNRS"}, "fe-k": {"MOOD"}, "mn-k": {"NNRS"}, "v-k": {"MOOD"}}
    assert {name: names for name, names in found.items() if names} == named


def test_a_card_from_before_there_were_standards_is_read(folder):
    rewrite(folder, standards=None)
    card = cards.read_card(folder)
    assert card.standards == ()
    assert "Measured standards" not in readable(card)


@pytest.mark.parametrize("sd", [-0.1, float("nan"), float("inf")])
def test_a_misfit_is_a_number(folder, sd):
    """NaN would make every interval of a measured spectrum NaN."""
    rewrite(folder, domain={"misfit_sd": {"OS": sd}})
    with pytest.raises(ModelError, match="misfit_sd"):
        cards.read_card(folder)


def test_a_misfit_is_of_a_descriptor(folder):
    rewrite(folder, domain={"misfit_sd": {"OS_mean": 0.3}})
    with pytest.raises(ModelError, match="misfit_sd: found OS_mean, expected OS, "):
        cards.read_card(folder)


@pytest.mark.parametrize(("step", "undone"), [(None, 1.0), (14.25, 0.87)])
def test_an_amplitude_is_undone_only_where_its_step_is_known(folder, step, undone):
    """Of a card from before there was one: a step at 0 eV put a dip of 0.11 before the edge and 0.6 onto CN."""
    known = {} if step is None else {"step_ev": step}
    rewrite(folder, domain={"amplitude": 0.87, "amplitude_sd": 0.1, **known})
    edge = cards.read_card(folder).edge_of_absorber()
    assert edge.amplitude == undone
    assert (edge.amplitude_sd > 0) == (edge.step_ev > 0) == (step is not None)


@pytest.mark.parametrize("where", [0, 1000, -1])
def test_a_model_with_a_flipped_byte_is_refused(folder, where):
    data = bytearray((folder / "model.ts").read_bytes())
    data[where] ^= 1
    (folder / "model.ts").write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.ts: SHA-256 [0-9a-f]{12}… does not match its card"):
        cards.verify(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": None}, "key grid: missing"),
        ({"colour": "blue"}, "unknown key colour; expected one of absorber, cite"),
        ({"edge_ev": "high"}, "key edge_ev: .*found 'high'"),
        ({"sha256": "0"}, "key sha256: "),
    ],
)
def test_a_card_that_is_wrong_says_in_which_key(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(ModelError, match=rf"card\.yaml: {message}"):
        cards.verify(folder)


@pytest.mark.parametrize("text", ["", "just words", "a: [", "- a\n- b", "\x00"])
def test_a_card_that_is_none_is_one_message(folder, text):
    (folder / "card.yaml").write_text(text)
    with pytest.raises(ModelError, match=r"card\.yaml: "):
        cards.read_card(folder)


def test_a_card_of_bytes_that_are_no_text(folder):
    (folder / "card.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ModelError, match=r"card\.yaml: "):
        cards.read_card(folder)


def test_a_card_that_changed_is_read_anew(folder):
    path = folder / "card.yaml"
    was, before = cards.read_card(folder), path.stat()
    path.write_text(path.read_text().replace(was.sha256, was.sha256[::-1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cards.read_card(folder).sha256 == was.sha256[::-1]


def test_a_grid_that_cannot_be_is_a_wrong_card(folder):
    grid = yaml.safe_load((folder / "card.yaml").read_text())["grid"]
    rewrite(folder, grid={**grid, "anchor_ev": [40.0, 400.0]})
    with pytest.raises(ModelError, match="anchor_ev"):
        cards.verify(folder)


def test_what_is_not_a_model_folder(folder, tmp_path):
    (folder / "model.ts").unlink()
    with pytest.raises(ModelError, match=r"no model\.ts beside card\.yaml"):
        cards.verify(folder)
    with pytest.raises(ModelError, match=r"no card\.yaml"):
        cards.verify(tmp_path)


def test_models_are_found_by_name_or_folder(folder):
    assert cards.find("ni-k") == SHIPPED["ni-k"]
    assert cards.find(str(folder)) == folder
    with pytest.raises(
        ModelError,
        match="no model 'ag-k': neither a folder nor one of co-k, cr-k, cu-k, fe-k, mn-k, ni-k, o-k, ti-k, v-k",
    ):
        cards.find("ag-k")
