"""The plan that docs/how-to/control-a-runengine.md shows repeats the frame that was judged, and no other one."""

import re
from pathlib import Path
from typing import Any

import pytest

from xas_agent.agent.types import RepeatFrame

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "control-a-runengine.md"


@pytest.mark.parametrize(
    ("asked_after", "run", "frame", "measured"),
    [(1, "this", 1, 3), (2, "this", 2, 3), (2, "this", 1, 2), (1, "an earlier one", 1, 2)],
)
def test_a_request_for_another_frame_or_run_is_ignored(asked_after: int, run: str, frame: int, measured: int):
    [example] = [
        b
        for b in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        if "def frames(number):" in b
    ]
    names: dict[str, Any] = {}
    exec("from bluesky import RunEngine\nfrom xas_agent.adapters.runengine import RunEngineControl", names)
    exec("RE = RunEngine()", names)
    exec(compile(example.partition("RE(frames(")[0], str(PAGE), "exec"), names)
    runs: list[str] = []
    numbers: list[int] = []

    def ask(name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            runs.append(doc["uid"])
        if name == "event":
            numbers.append(doc["seq_num"])
            if len(numbers) == asked_after:
                names["asked"].put(RepeatFrame(count_factor=4, run=runs[0] if run == "this" else run, frame=frame))

    names["RE"].subscribe(ask)
    names["RE"](names["frames"](2))
    names["control"].close()
    assert numbers == [*range(1, measured + 1)]
