"""The plots for notebooks, and what they refuse."""

import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from app_history import MU, E, many
from shown_session import written

from xas_agent import plot_alignment, plot_series
from xas_agent.agent.decide import Rule
from xas_agent.agent.types import InputError
from xas_agent.app.output.data_frames import Results

pytest.importorskip("pandas")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def labels(axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def test_a_series_is_a_line_of_all_frames_with_a_band():
    results = Results(many(5))
    axes = plot_series(results)
    [line] = axes.lines
    assert line.get_xdata() == pytest.approx(np.arange(5))
    assert line.get_ydata() == pytest.approx(results.series()["OS_mean"])
    assert len(axes.collections) == 1
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("OS (e)", "time since the first frame (s)")
    assert axes.get_title("right") == "a single value: ± 0.6 e (90 %), mostly common to all"
    low, high = axes.get_ylim()
    assert high - low < 0.5  # the trend fills the panel, not the common error


def test_several_samples_have_a_line_each():
    axes = plot_series(Results(many(3, samples=("NiO", "CoO"))))
    assert labels(axes) == ["NiO", "CoO"]
    assert axes.get_title("left") == ""


def test_the_legend_names_some_of_many_samples():
    axes = plot_series(Results(many(2, samples=[f"$s_{k}$" for k in range(10)])))
    assert labels(axes)[0] == r"\$s_0\$"
    assert labels(axes)[-1] == "and 2 more"
    assert len(labels(axes)) == 9


def test_frames_set_aside_before_any_is_answered_are_shown():
    assert labels(plot_series(Results(many(0, aside=3)).series().assign(OS_mean=np.nan))) == ["set aside (3)"]


def test_frames_set_aside_and_unfamiliar_ones_are_shown():
    axes = plot_series(Results(many(4, aside=2, ood=(3,))))
    assert labels(axes) == ["unlike the training spectra", "set aside (2)"]


def test_any_column_of_a_table_can_be_plotted_on_given_axes():
    _, (above, below) = plt.subplots(2)
    table = Results(many(3)).series()
    assert plot_series(table, "voltage", ax=below) is below
    assert plot_series(table.head(2), ax=above) is above
    assert below.get_ylabel() == "voltage (V)"
    assert len(above.lines[0].get_xdata()) == 2


@pytest.mark.parametrize(
    ("frames", "quantity", "said"),
    [
        (0, None, "found no frames"),
        (2, "XYZ", "found 'XYZ', expected a descriptor .*OS.*voltage"),
        (2, "sample", "found 'sample'"),
    ],
)
def test_what_is_not_there_is_told(frames, quantity, said):
    with pytest.raises(InputError, match=said):
        plot_series(Results(many(frames)), quantity)


def test_an_alignment_is_drawn_with_its_lines():
    axes = plot_alignment(E, MU, element="Co")
    assert len(axes) >= 2
    assert all(one.figure is axes[0].figure for one in axes)
    names = [name for one in axes for name in labels(one)]
    assert any(name.startswith("E0 77") for name in names)
    assert any("pre-edge" in name for name in names)


def test_an_alignment_may_be_drawn_in_a_part_of_a_figure():
    figure = plt.figure(figsize=(12, 8))
    above, below = figure.add_subfigure(figure.add_gridspec(2)[0]), figure.add_subfigure(figure.add_gridspec(2)[1])
    parts = [plot_alignment(E, MU, figure=above), plot_alignment(E, 2 * MU, model="co-k", figure=below)]
    assert parts[0]
    assert [*parts[0], *parts[1]] == figure.axes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((E, [MU, MU]), "found 2 spectra, expected one: choose it, as spectra"),
        ((E, np.where(E > 8000, np.nan, MU)), "cannot be aligned, NaN in data"),
        ((E + 9000, MU), "cannot be aligned, no model"),
    ],
)
def test_a_spectrum_without_alignment_is_told(arguments, said):
    with pytest.raises(InputError, match=said):
        plot_alignment(*arguments)


def test_a_spectrum_that_is_too_short_is_drawn_with_the_reason():
    axes = plot_alignment(E[E < 7760], MU[E < 7760], element="Co")
    assert any("does not cover" in text.get_text() for one in axes for text in one.texts)


def test_the_bars_of_the_rules_are_drawn_where_they_are_known(tmp_path):
    rules = [{"name": "half", "trigger": {"kind": "threshold", "quantity": "OS", "above": 3.1}, "action": "stop"}]
    results = Results(many(5))
    results.history.recorder.rules = tuple(Rule.model_validate(rule) for rule in rules)
    axes = plot_series(results)
    assert [text.get_text() for text in axes.texts] == ["stop above 3.1 e"]
    assert axes.get_ylim()[1] > 3.1
    assert len(plot_series(results, "ood_score").texts) == 0
    far = Results(many(5))
    far.history.recorder.rules = (Rule.model_validate({**rules[0], "trigger": {**rules[0]["trigger"], "above": 9}}),)
    axes = plot_series(far)
    assert [text.get_text() for text in axes.texts] == ["▲ stop above 9 e"]
    assert axes.get_ylim()[1] < 4


def test_a_folder_knows_its_rules(tmp_path):
    folder = written(tmp_path / "night1")
    rule = {"name": "r", "trigger": {"kind": "threshold", "quantity": "OS", "below": 3.02}, "action": "stop"}
    (folder / "session.json").write_text(json.dumps({"config": {"rules": [rule]}}))
    assert [text.get_text() for text in plot_series(folder).texts] == ["stop below 3.02 e"]
