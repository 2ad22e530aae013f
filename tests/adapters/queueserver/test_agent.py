"""An agent whose rules act on a queue server."""

import time

from damaged_documents import cobalt_points
from made_runs import Made

from xas_agent import XASAgent


def test_a_rule_queues_a_plan(api, server):
    config = {
        "model": {"use": ["co-k"]},
        "control": {"enabled": True, "allow": ["queue_plan"], "timeout_s": 30},
        "queue_server": {"address": server.address, "user": "the agent", "lease": str(server.folder / "lease")},
        "rules": [
            {
                "name": "follow up",
                "trigger": {"kind": "threshold", "descriptor": "OS", "above": 1.0},
                "action": "queue_plan",
                "args": {"plan": {"name": "measure", "args": [["axis"]]}},
            }
        ],
    }
    made, decisions = Made(element="Co"), []
    made.event("primary", True, *cobalt_points(), time.time())
    made.stop()
    with XASAgent.from_config(config) as agent:
        agent.subscribe(lambda _, doc: decisions.append(doc["data"]) if "status" in doc.get("data", {}) else None)
        for name, doc in made.docs:
            agent(name, doc)
        assert agent.wait(60)
    assert [data["status"] for data in decisions] == ["proposed", "sent", "acknowledged"]
    assert decisions[-1]["status_reason"].startswith("the plan is queued; the manager is idle, 1 queued")
    (item,) = api.queue_get()["items"]
    assert (item["name"], item["user"]) == ("measure", "the agent")
    assert item["meta"] == {"xas_agent_decision": decisions[0]["id"]}
