"""A wall clock that jumps by hours while the agent runs: in the documents, and on its own machine."""

import itertools
import time

import pytest
from damaged_documents import CONFIG, cobalt_points
from made_runs import Made

from xas_agent import XASAgent
from xas_agent.app.output.recorder import Recorder

HOURS = 3600.0


@pytest.mark.parametrize("jumps", [(3 * HOURS, 0.0), (-3 * HOURS, 0.0), (0.0, 3 * HOURS), (0.0, -3 * HOURS)])
def test_every_frame_is_answered_with_its_age(jumps: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    in_documents, here = jumps
    clock, rows = time.time, []
    recorder = Recorder(rows.append)
    made = Made(element="Co")
    for k in range(12):
        at = clock() + k + (in_documents if 4 <= k < 8 else 0.0)
        made.event("primary", True, *cobalt_points(), at)
    with XASAgent.from_config(CONFIG) as agent:
        agent.subscribe(recorder)
        for k, (name, doc) in enumerate(made.stop().docs):
            if k == 6:
                assert agent.wait(60)
                monkeypatch.setattr(time, "time", lambda: clock() + here)
            agent(name, doc)
        assert agent.wait(60)
        age_s = agent.state().document_age_s
    assert age_s is not None
    assert 0 <= age_s < HOURS
    assert [row["seq_num"] for row in rows] == list(range(1, 13))
    assert not recorder.set_aside + recorder.gaps
    assert all(0 < row["latency_ms"] < 1000 * HOURS for row in rows)
    assert all(abs(a["OS_mean"] - b["OS_mean"]) < 1e-3 for a, b in itertools.pairwise(rows))
    assert {row["flags"] for row in rows} == {rows[0]["flags"]}
