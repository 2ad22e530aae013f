"""An agent that publishes pages: who takes them gets them, and everybody else their Events."""

from typing import Any

import pytest
from watched import Watched, WhiteLine

from xas_agent import XASAgent
from xas_agent.agent.publish import events_of
from xas_agent.agent.types import Document
from xas_agent.app.config import Config

FRAMES = 40


@pytest.mark.parametrize(("pages", "expected"), [("never", False), ("always", True)])
def test_a_subscriber_gets_pages_only_if_it_takes_them(pages, expected):
    config = Config.model_validate({"serving": {"pages": pages}})
    watched = Watched("Co", *[0.5 + n / 100 for n in range(FRAMES)]).stop()
    taken: list[Document] = []
    single: list[Document] = []
    with XASAgent(config, [WhiteLine("Co")]) as agent:
        agent.live = False
        agent.subscribe(lambda name, doc: taken.append((name, doc)), pages=True)
        agent.subscribe(lambda name, doc: single.append((name, doc)))
        for document in watched.docs:
            agent(*document)
        assert agent.wait(60)
        table = agent.series()
    assert any(name == "event_page" for name, _ in taken) == expected
    assert all(name != "event_page" for name, _ in single)
    unpacked = [e for name, doc in taken for e in (events_of(doc) if name == "event_page" else [doc])]
    assert [doc["uid"] for doc in unpacked] == [doc["uid"] for _, doc in single]
    assert numbers(single) == [*range(1, FRAMES + 1)]
    assert len(table) == FRAMES


def numbers(documents: list[Document]) -> list[Any]:
    data = [doc["data"] for name, doc in documents if name == "event"]
    return [d["frame_seq_num"] for d in data if "OS_mean" in d]
