"""What a user's YAML may say, and the one line that tells what is wrong with it."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from xas_agent.app.config import Config, ConfigError, load_config, shipped_configs


def test_nothing_said_is_the_default(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert load_config() == load_config({}) == load_config(tmp_path / "empty.yaml") == Config()
    assert not Config().control.enabled
    assert Config().control.allow == ()
    assert Config().source is None


@pytest.mark.parametrize("name", shipped_configs())
def test_a_shipped_config_is_found_by_its_name(name):
    config = load_config(name)
    folder = Path(__import__("xas_agent").__file__).parent / "configs"
    assert config == load_config(folder / f"{name}.yaml") == load_config(str(folder / f"{name}.yaml"))


def test_the_embedded_default_stops_at_half_charge():
    config = load_config("default")
    assert config.x_target == 0.5
    assert [r.action for r in config.rules] == ["stop"]
    assert config.control.enabled
    assert config.control.allow == ("stop",)


def test_a_file_of_ones_own_comes_before_a_shipped_name(tmp_path, monkeypatch):
    (tmp_path / "default").write_text("x_target: 0.3\n")
    monkeypatch.chdir(tmp_path)
    assert load_config("default").x_target == 0.3


RULE = {"name": "r", "trigger": {"kind": "threshold", "descriptor": "OS", "above": 3.5}}


NOT_FINITE = [
    ("above", {"kind": "threshold", "quantity": "OS", "above": math.nan}),
    ("above", {"kind": "threshold", "quantity": "OS", "above": math.inf}),
    ("dwell_s", {"kind": "threshold", "quantity": "OS", "above": 3.5, "dwell_s": math.inf}),
    ("high", {"kind": "band", "quantity": "OS", "low": 3.0, "high": math.inf}),
    ("tolerance", {"kind": "plateau", "quantity": "OS", "tolerance": math.inf, "frames": 7}),
    ("seconds", {"kind": "quiet", "seconds": math.inf}),
]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"modle": {}},
            r"unknown key modle; expected one of alignment, anchors, assets, control, control_endpoint, fields, fly",
        ),
        ({"model": {"nme": "a"}}, r"unknown key model\.nme; expected one of device, engine, threads, use"),
        ({"control": {"allowed": []}}, r"unknown key control\.allowed; expected one of allow, authority"),
        ({"source": {"adress": "zmq://a:1"}}, r"unknown key source\.adress \(and 1 more\); expected one of address"),
        (
            {"rules": [{"name": "silent", "trigger": {"kind": "quiet", "minutes": 2}}]},
            r"unknown key rules\.0\.trigger\.quiet\.minutes \(rule 'silent'\) \(and 1 more\); expected one of kind, ",
        ),
        ({"rules": [{"name": "silent"}]}, r"key rules\.0\.trigger \(rule 'silent'\): missing"),
        (
            {"source": {"address": "zmq://a"}},
            r"key source\.address: found 'zmq://a', expected zmq://HOST:PORT or ipc:///PATH",
        ),
        ({"model": {"device": "tpu"}}, r"key model\.device: found 'tpu', expected: .*'auto', 'cpu' or 'cuda'"),
        ({"model": {"threads": 0}}, r"key model\.threads: found 0, expected: .*greater than or equal to 1"),
        ({"model": "co-k"}, r"key model: found 'co-k', expected: "),
        ({"control": {"allow": ["explode"]}}, r"key control\.allow\.0: found 'explode', expected: .*'pause'"),
        (
            {"rules": [{**RULE, "acton": "stop"}]},
            r"unknown key rules\.0\.acton \(rule 'r'\); expected one of action, args, edge, element, go_to,",
        ),
        (
            {"rules": [{**RULE, "trigger": {"kind": "cusp"}}]},
            r"key rules\.0\.trigger \(rule 'r'\): .*'threshold', 'band'",
        ),
        ({"rules": [RULE, RULE]}, r"key rules: found two rules named 'r', expected"),
        (
            {"rules": [{**RULE, "stage": "end"}]},
            r"key rules\.0\.stage \(rule 'r'\): found 'end', expected another name: in the stage end no rule",
        ),
        *(
            (
                {"rules": [{"name": "r", "trigger": trigger}]},
                rf"key rules\.0\.trigger\..*\.{key} \(rule 'r'\): .*finite number",
            )
            for key, trigger in NOT_FINITE
        ),
        *(
            ({"control": {k: math.inf}}, rf"control\.{k}: .*finite")
            for k in ("timeout_s", "max_age_s", "confirm_within_s")
        ),
        ({"control": {"settable": {"furnace": [0, math.inf]}}}, r"settable\.furnace\.1: .*finite number"),
        ({"source": {"address": "a:1", "serializer": "pickle"}}, "allow_pickle: true"),
        (
            {"source": {"address": "zmq://a:1", "curve_secret_key": __file__}},
            "key source: expected: connecting with CURVE requires both curve_secret_key and curve_server_key$",
        ),
        (
            {"queue_server": {"address": "zmq://a:1"}},
            r"key queue_server\.address: found 'zmq://a:1', expected tcp://HOST:PORT or ipc:///PATH",
        ),
        (
            {"source": {"address": "zmq://a:1", "curve_secret_key": "no.key"}},
            r"key source\.curve_secret_key: found 'no\.key', expected: an existing file",
        ),
        ({"queue_server": {"public_key": "k" * 39}}, r"key queue_server\.public_key: found 39 characters, expected"),
        (
            {"queue_server": {}, "control_endpoint": {"address": "ipc:///run/control"}},
            "found control_endpoint and queue_server, expected one of them",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_file_key_and_expectation(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=f"^config: .*{message}"):
        load_config(content)


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([{"frame": 0, "OS_mean": 3}], "key anchors.0.frame: found 0, expected first or the number of a frame"),
        (
            [{"frame": "last", "OS_mean": 3}],
            "key anchors.0.frame: found 'last', expected first or ",
        ),
        ([{"frame": 1, "OS_mean": "high"}], "key anchors.0.OS_mean: found 'high', expected: "),
        ([{"frame": 1, "OS": 3}], "key anchors.0: found key OS, expected <descriptor>_mean, frame, "),
        ([{"OS_mean": 3}], "key anchors.0: found no condition or two, expected frame "),
        ([{"frame": 1, "OS_mean": 3, "sd": 0}], "key anchors.0.sd: found 0, expected: "),
        (
            [{"frame": 1, "OS_mean": 3}, {"frame": 1, "OS_mean": 4}],
            "key anchors: found OS_mean 3 and 4 for the same frames, expected one value",
        ),
    ],
)
def test_an_anchor_that_cannot_be_is_one_line(tmp_path, anchors, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"anchors": anchors}))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: {message}")


def test_anchors_belong_to_the_hash_and_are_read_as_they_are_written():
    config = load_config({"anchors": [{"voltage_below": 3.0, "OS_mean": 3.0}, {"frame": "first", "OS_mean": 3.3}]})
    assert config.sha256 != Config().sha256
    assert load_config(config.model_dump(mode="json")).sha256 == config.sha256
    assert [anchor.count for anchor in config.anchors] == [3, 1]


def test_an_unknown_key_of_a_trigger_names_its_neighbours():
    trigger = {**RULE["trigger"], "abov": 3.6}  # type: ignore[dict-item]
    with pytest.raises(
        ConfigError, match=r"unknown key rules\.0\.trigger.*abov \(rule .*\); expected one of .*hysteresis"
    ):
        load_config({"rules": [{**RULE, "trigger": trigger}]})


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            {"trigger": {"kind": "treshold", "quantity": "OS", "above": 3.5}},
            r"key rules\.0\.trigger \(rule '.*'\): found kind 'treshold', expected one of 'threshold', 'band'",
        ),
        ({"action": "stopp"}, r"key rules\.0\.action \(rule '.*'\): found 'stopp', expected: 'pause', 'resume'"),
    ],
)
def test_a_misspelt_choice_lists_the_choices(rule, said):
    with pytest.raises(ConfigError, match=said):
        load_config({"rules": [{**RULE, **rule}]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: {use: [a]\nrules: 1\n", r"not YAML: while parsing a flow mapping in line 1, column 8 .* in line 2"),
        (b"model: [", "not YAML"),
        (b"- a\n- b\n", "found list, expected a mapping"),
        (b"co-k", "found str, expected a mapping"),
        (b"\xff\xfe\xff", "not YAML"),
        (b"a: 1\na: !!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_a_file_that_is_no_config_is_one_line(tmp_path, content, message):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"c\.yaml: {message}") as error:
        load_config(tmp_path / "c.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_config_that_a_windows_program_saved_is_read(tmp_path, encoding):
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (tmp_path / "c.yaml").write_bytes(mark + "fields: {energy: énergie}\r\n".encode(encoding))
    assert load_config(tmp_path / "c.yaml").fields.energy == "énergie"


@pytest.mark.parametrize("name", ["nowhere.yaml", ".", "with\nnewline"])
def test_no_such_file_lists_what_is_shipped(name):
    with pytest.raises(
        ConfigError, match=f"{re.escape(name)}: no such config; expected a YAML file, or one of .*default"
    ):
        load_config(name)


def test_the_hash_is_of_what_is_said_not_of_how(tmp_path):
    (tmp_path / "a.yaml").write_text("x_target: 0.5\nmodel: {use: [co-k]}\n")
    (tmp_path / "b.yaml").write_text("# the same\nmodel:\n  use: ['co-k']\nx_target: 0.50\n")
    a, b = load_config(tmp_path / "a.yaml"), load_config(tmp_path / "b.yaml")
    assert a.sha256 == b.sha256 == load_config({"model": {"use": ("co-k",)}, "x_target": 0.5}).sha256
    assert len({a.sha256, load_config({"x_target": 0.5}).sha256, Config().sha256}) == 3


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(Config.model_fields)) | st.text(max_size=8), JSON, max_size=3))
@settings(max_examples=150, deadline=None)
def test_any_mapping_is_a_config_or_one_line(content):
    try:
        config = load_config(content)
    except ConfigError as error:
        found = str(error)
    else:
        found = config.sha256
    assert "\n" not in found


def test_the_examples_of_the_documentation_are_configs():
    text = (Path(__file__).parents[2] / "docs" / "explanations" / "normalisation.md").read_text(encoding="utf-8")
    examples = [yaml.safe_load(part.split("```")[0]) for part in text.split("```yaml\n")[1:]]
    assert examples
    for example in examples:
        assert load_config(example) != Config()  # what it names is taken, and is no default
