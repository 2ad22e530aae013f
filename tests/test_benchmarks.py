"""The benchmarks of speed: how they judge and print figures, and short forms of them, judged by their rows."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_figures", BENCHMARKS / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.8, 0.9, 1.0], "met"),
        ([0.9, 1.0, 1.2], "met, in 2 of 3 rounds"),
        ([1.0, 1.1, 1.2], "missed, met in 1 of 3 rounds"),
        ([1.1, 1.2, 1.3], "missed"),
    ],
)
def test_a_bar_is_judged_by_the_median_and_says_in_how_many_rounds_it_was_kept(figures, values, verdict):
    assert figures.Bar(1.0).verdict(values) == verdict
    assert figures.Bar(-1.0, at_least=True).verdict([-value for value in values]) == verdict


def test_a_value_has_three_digits_and_no_exponent(figures):
    values = (0.03217, 29.81, 999.4, 999.6, 1234.5, 9996.0, 31_234.0)
    assert [*map(figures.number, values)] == ["0.0322", "29.8", "999", "1000", "1230", "10 000", "31 200"]


def test_rows_have_median_range_bar_and_verdict_of_what_was_measured(figures):
    known = [
        figures.Figure("rate", "frames/s", "×", figures.Bar(0.75, at_least=True)),
        figures.Figure("memory", "memory", "MB"),
        figures.Figure("other", "not measured"),
    ]
    rows = figures.rows_of(known, {"rate": [0.7, 0.91, 0.8, 0.76], "memory": [31_234.0]})
    assert rows == [
        ("frames/s", "0.78 ×", "0.7 to 0.91", "≥ 0.75", "met, in 3 of 4 rounds"),
        ("memory", "31 200 MB", "", "", ""),
    ]
    assert figures.markdown(("a", "b", "c", "d", ""), rows[1:]).splitlines() == [
        "| a | b | c | d | |",
        "| --- | --- | --- | --- | --- |",
        "| memory | 31 200 MB | | | |",
    ]
    lines = figures.table(("what", "median", "range", "bar", ""), rows).splitlines()
    assert [line.index(part) for line, part in zip(lines, ("median", "0.78", "31 200"), strict=True)] == [10] * 3


def test_a_table_replaces_the_one_in_its_page_and_no_other(figures, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- measured: one -->\nold\n<!-- end -->\nb\n<!-- measured: two -->\n<!-- end -->\n")
    for text in ("first \\1", "second \\1"):
        figures.fill(page, "two", text)
    figures.fill(page, "one", "new")
    assert page.read_text() == (
        "a\n<!-- measured: one -->\n\nnew\n\n<!-- end -->\nb\n<!-- measured: two -->\n\nsecond \\1\n\n<!-- end -->\n"
    )
    with pytest.raises(ValueError, match="found 0 places"):
        figures.fill(page, "three", "new")


def test_the_page_of_speed_has_a_place_for_every_table(figures, tmp_path):
    page = tmp_path / "speed.md"
    page.write_text((BENCHMARKS.parent / "docs" / "explanations" / "speed.md").read_text())
    for name in ("ratios", "batch", "agents", "frames", "cpu", "cuda"):
        figures.fill(page, name, f"table of {name}")
        assert f"table of {name}" in page.read_text()


def _run(script: str, *options: object) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rounds_measure_both_networks_and_the_agent(tmp_path):
    out = tmp_path / "figures.json"
    printed = _run("run.py", "--only", "forward", "own-time", "--rounds", 2, "--frames", 40, "--out", out)
    found = json.loads(out.read_text())
    assert all(len(values) == 2 for values in found.values())
    assert max(found["answers_difference"]) <= 1e-4
    assert min(found["former_frames_per_s"] + found["own_from_pages_ms"]) > 0
    assert "bare batched forward of 0.1.0" in printed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_device_is_measured_beside_the_network():
    printed = _run("device.py", "--device", "cpu", "--seconds", 0.05)
    assert "MFLOP" in printed
    assert "batch 256, exact" in printed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cost_and_speed_by_size_are_printed_and_drawn(tmp_path):
    figure = tmp_path / "scaling.svg"
    script = (
        "import scaling\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    batches = scaling.measure_batches('co-k', 1, (1, 2))\n"
        "    agents = scaling.measure_agents('co-k', 1, (2,), 100)\n"
        "    frames = scaling.measure_frames(1, (40, 80))\n"
        f"    scaling.draw(Path({str(figure)!r}), batches, agents, frames)\n"
        "    for rows in (scaling.batch_rows(batches), scaling.agent_rows(agents), scaling.frame_rows(frames)):\n"
        "        print(*rows, sep='\\n')\n"
    )
    driver = tmp_path / "driver.py"
    driver.write_text(f"import sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\n{script}")
    printed = _run(str(driver))
    assert printed.count("('ZMQ, a stream each', '2'") == 1
    assert "('80', " in printed
    assert figure.read_text().count("<svg") == 1
