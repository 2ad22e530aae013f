"""The shipped examples of rules: the agent takes them as they are, and every kind of trigger has one."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from logs import capture_logs

from xas_agent.agent.decide import QuantityTrigger, Trigger, triggers_in
from xas_agent.agent.types import Estimator
from xas_agent.app.config import Config, ConfigError, load_config
from xas_agent.app.wiring import check_rules, load_models

FOLDER = Path(__file__).parents[2] / "configs" / "decisions"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def models() -> Sequence[Estimator]:
    return load_models(Config())


def used(config: Config, models: Sequence[Estimator]) -> list[Estimator]:
    return [model for model in models if not config.model.use or model.name in config.model.use]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_watches_what_the_models_give_and_can_decide(name, models, caplog):
    config = load_config(f"decisions/{name}")
    assert config.rules
    check_rules(config, used(config, models))
    assert not caplog.records


def test_a_quantity_that_no_model_gives_is_refused(models):
    config = load_config({"rules": [{"name": "r", "trigger": {"kind": "threshold", "quantity": "SO", "above": 3}}]})
    with pytest.raises(ConfigError, match="found quantity 'SO'"):
        check_rules(config, models)


def test_undecided_of_what_has_no_scatter_is_refused(models):
    trigger = {"kind": "undecided", "of": {"kind": "threshold", "quantity": "noise", "above": 0.01}}
    config = load_config({"rules": [{"name": "r", "trigger": trigger}]})
    with pytest.raises(ConfigError, match=r"found quantity 'noise' in undecided, expected a descriptor"):
        check_rules(config, models)


@pytest.mark.parametrize(
    ("settings", "level"), [({}, "info"), ({"element": "Co"}, None), ({"element": "Cu"}, "warning")]
)
def test_a_level_that_only_other_absorbers_reach_is_a_warning(settings, level, models):
    """A rule for all absorbers may be meant for the one that has such a state."""
    two = [model for model in models if model.absorber in ("Co", "Cu")]
    trigger = {"kind": "threshold", "quantity": "OS", "above": 3.5, "window_frames": 21}
    with capture_logs() as lines:
        check_rules(load_config({"rules": [{"name": "r", "trigger": trigger, **settings}]}), two)
    found = [(line["event"], line["log_level"], line["model"]) for line in lines]
    assert found == ([("rule cannot decide", level, "cu-k")] if level else [])


@pytest.mark.parametrize("name", NAMES)
def test_an_example_acts_only_once_it_is_switched_on_and_then_may_do_what_it_requests(name):
    config = load_config(f"decisions/{name}")
    assert not config.control.enabled
    assert {rule.action for rule in config.rules} - {"notify"} == {*config.control.allow}


def test_every_kind_of_trigger_stages_and_readings_have_an_example():
    rules = [rule for name in NAMES for rule in load_config(f"decisions/{name}").rules]
    parts = [part for rule in rules for part in triggers_in(rule.trigger)]
    assert {type(part) for part in parts} == {*get_args(get_args(Trigger)[0])}
    quantities = {part.quantity for part in parts if isinstance(part, QuantityTrigger)}
    assert {"OS", "OS_anchored", "OS_half_width", "noise", "readings.voltage"} <= quantities
    assert any(rule.stage and rule.go_to for rule in rules)
