"""The report of ``xas-agent evaluate`` from a small model, by the command and in this process."""

import shutil
from pathlib import Path

import pytest
import yaml
from forked import run_command
from logs import capture_logs

from xas_agent.agent.types.errors import InputError
from xas_agent.app.config import ConfigError, read_training
from xas_agent.app.jobs import evaluate
from xas_agent.app.jobs.evaluate import config_in, fingerprint, read_evaluation, report_on
from xas_agent.app.jobs.train import train_model
from xas_agent.models.card import find, read_card
from xas_agent.models.training.plan import config_of

SMALL = """
studies: [benchmark, uncertainty, out_of_distribution]
benchmark:
  competitors: [decision-tree, extra-trees]
  search: false
  members: 1
  members_by_site: 1
  lone_spts: 1
  experts: [OS]
  ablations:
    no graph branch: {network: {graph: false}}
"""


@pytest.fixture(scope="module")
def model(feff, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("model")
    grid = {"start_ev": -9.0, "stop_ev": 72.0, "step_ev": 1.0, "foot_ev": [-9.0, -6.0], "anchor_ev": [40.0, 72.0]}
    how = read_training("co-k").model_dump(mode="json") | {
        "name": "small",
        "dataset": "small",
        "grid": grid,
        "regressed": ["NNRS", "MOOD", "OS_mean"],
        "network": {"width": 8, "blocks": 1, "heads": 2, "latent": 16, "gathered": 4, "key": 4, "bands": 2},
        "optimisation": {"epochs": 2, "batch": 8, "rows_per_epoch": 16},
        "pretrained": None,
        "runs": 1,
        "protocol": "split",
        "members": 2,
    }
    (out / "small.yaml").write_text(yaml.safe_dump(how, allow_unicode=True), encoding="utf-8")
    return train_model(out / "small.yaml", feff, out, 1)


@pytest.mark.slow
def test_the_command_writes_a_report_and_goes_on_where_it_was(model, feff, tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    words = ["evaluate", model, "--data", feff, "--jobs", 2, "--config", tmp_path / "small.yaml"]
    words += ["--out", tmp_path / "report"]
    done = run_command(*words)
    page = tmp_path / "report" / "report.html"
    assert done.stdout.strip() == str(page)
    said = page.read_text(encoding="utf-8")
    for title in ("The SPT against its competitors", "The same, split by site", "Robustness", "Expert against Joint"):
        assert title in said
    assert "The card of this model states no measured standards." in said
    tables = {p.stem for p in (tmp_path / "report" / "tables").glob("*.csv")}
    assert {"spt-against-best", "cost", "experts", "ablations", "noise-loss"} <= tables
    assert "benchmark: 8 of 8" in done.stderr

    again = run_command(*words, "--only", "benchmark")
    assert "benchmark: 8 of 8, kept from before" in again.stderr


@pytest.mark.slow
def test_a_report_of_nothing_is_one_message(model, feff, tmp_path):
    with pytest.raises(InputError, match="quick: nothing to report; transfer need settings in the config"):
        report_on(str(model), feff, tmp_path, "quick", ["transfer"], 1)


@pytest.mark.slow
def test_what_is_kept_is_void_for_other_data(model, feff, tmp_path):
    how = config_of(read_card(model))
    before = fingerprint([how], feff)
    for part in ("small.npz", "small.csv"):
        (tmp_path / part).write_bytes((feff / part).read_bytes())
    assert fingerprint([how], tmp_path) == before
    (tmp_path / "small.csv").write_text((tmp_path / "small.csv").read_text().replace("train", "val", 1))
    assert fingerprint([how], tmp_path) != before


def test_sets_that_the_folder_lacks_are_left_out_and_named(tmp_path):
    card = read_card(find("cu-k"))
    assert config_in(card, tmp_path).datasets == ("cu_k", "cu_k_sulphides")  # reading them fails and says why
    with capture_logs() as logs:
        (tmp_path / "cu_k.npz").touch()
        assert config_in(card, tmp_path).datasets == ("cu_k",)
        (tmp_path / "cu_k_sulphides.npz").touch()
        assert config_in(card, tmp_path) == config_of(card)
    assert [line["absent"] for line in logs] == ["cu_k_sulphides"]


@pytest.mark.slow
def test_an_unknown_study_is_one_message(model, feff, tmp_path):
    with pytest.raises(InputError, match="no study astrology; there are benchmark, uncertainty"):
        report_on(str(model), feff, tmp_path, "quick", ["benchmark", "astrology"], 1)


def test_a_former_name_of_a_study_is_one_message(feff, tmp_path):
    with pytest.raises(InputError, match="study unfamiliar has a new name: out_of_distribution"):
        report_on("cu-k", feff, tmp_path, "quick", ["unfamiliar"], 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("studies: [astrology]", r"key studies\.0: found 'astrology'"),
        ("studies: [unfamiliar]", "key studies: study unfamiliar has a new name: out_of_distribution"),
        ("studies: []\nbenchmark: {member: 3}", r"unknown key benchmark\.member; expected one of ablations"),
        ("studies: []\nbenchmark: {competitors: [lightgbm]}", "no competitor lightgbm; there are nearest-neighbours"),
        ("studies: []\nbenchmark: {ablations: {x: {optimization: {}}}}", "no setting optimization; an ablation has"),
        ("studies: []\nbenchmark: {lone_spts: 0}", "lone_spts 0: Experts and ablations need at least one"),
        ("studies: [universal]\nuniversal: {}", "found no transfer"),
        ("studies: [", "not YAML"),
        ("just words", "found str, expected a mapping"),
        ("studies: []\ntransfer: words", "key transfer: found 'words', expected: "),
        ("studies: []\nuniversal: [1]", r"key universal: found \[1\], expected: "),
        ("studies: []\ntargets: 3", "key targets: found 3, expected: a list"),
        ("studies: []\ntargets: [[co-k]]", "no such file; shipped training configs are co-k, cr-k, cu-k, fe-k"),
        ("studies: []\ntargets: [none]", "none: no such file; shipped training configs are co-k, cr-k, cu-k"),
    ],
)
def test_a_wrong_config_is_one_message(tmp_path, content, message):
    (tmp_path / "e.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_evaluation(str(tmp_path / "e.yaml"), "cu-k")


def test_a_mistake_of_the_code_is_not_the_configs(tmp_path, monkeypatch):
    def broken(card: object) -> None:
        raise AttributeError("no such attribute")

    monkeypatch.setattr(evaluate, "config_of", broken)
    (tmp_path / "e.yaml").write_text("studies: []")
    with pytest.raises(AttributeError, match="no such attribute"):
        read_evaluation(str(tmp_path / "e.yaml"), "cu-k")


@pytest.mark.parametrize("name", ["quick", "full"])
def test_the_shipped_configs_are_read(name):
    found = read_evaluation(name, "cu-k")
    assert found.benchmark is not None
    assert (found.transfer is not None) == (name == "full")


def test_the_disordered_rows_are_those_of_the_models_absorber(tmp_path):
    found = read_evaluation("full", "ti-k").disorder
    assert found is not None
    assert found.dataset == "ti_k_disordered"
    assert found.targets[0].datasets == ("ti_k_disordered",)
    assert found.pretrained == "ti-k"
    (tmp_path / "e.yaml").write_text("studies: [disorder]\ndisorder: {dataset: glass}")
    other = read_evaluation(str(tmp_path / "e.yaml"), "ti-k").disorder
    assert other is not None
    assert other.targets[0].datasets == ("glass",)


def test_missing_disordered_rows_are_named(tmp_path, feff, model):
    with pytest.raises(InputError, match=r"disorder needs .*co_k_disordered\.npz"):
        report_on(str(model), feff, tmp_path, "full", ["disorder"], 1)


def test_figures_of_value_and_mean_have_their_own_numbers_of_rows(capsys, monkeypatch):
    """Of 32 rows of Mn for validation 31 have an oxidation state, and 18 a mean one by charge balance."""
    monkeypatch.setenv("COLUMNS", "200")
    evaluate.evaluate_model("mn-k", Path(__file__).resolve().parents[3] / "data/feff", "val", None)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert next(line for line in lines if line.startswith("as computed OS ")).endswith("% 31, mean 18 weighted F1")
    assert next(line for line in lines if line.startswith("as computed CN ")).endswith("% 32 weighted F1")


@pytest.mark.parametrize(
    ("name", "split", "said"), [("co-k", "val", True), ("co-k", "sim", False), ("mn-k", "val", False)]
)
def test_scores_on_rows_of_the_training_are_called_that(name, split, said, capsys):
    """The networks of co-k learn of all rows, by cross-validation; those of mn-k not of its rows for validation."""
    evaluate.evaluate_model(name, Path(__file__).resolve().parents[3] / "data/feff", split, None)
    assert ("was trained on rows of this split" in capsys.readouterr().out) == said


@pytest.mark.slow
def test_a_report_states_on_how_many_sites_the_model_was_trained(model, feff, tmp_path):
    page = report_on(str(model), feff, tmp_path / "before", "quick", ["exploration"], 1).read_text(encoding="utf-8")
    rows = read_card(model).training["rows"]
    assert f"trained on {rows} sites of small. " in page
    card = (model / "card.yaml").read_text(encoding="utf-8")
    other = tmp_path / "small"
    shutil.copytree(model, other)
    (other / "card.yaml").write_text(card.replace(f"  rows: {rows}\n", "  rows: 5\n"), encoding="utf-8")
    page = report_on(str(other), feff, tmp_path / "after", "quick", ["exploration"], 1).read_text(encoding="utf-8")
    assert f"trained on 5 sites of small (of {rows} in these data). " in page
