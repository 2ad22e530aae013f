"""Ask a queue server for actions over a network that loses and repeats messages; count what it has done.

    python benchmarks/campaigns/queue_actions.py [--actions 1000] [--lost 0.1] [--repeated 0.1] [--seed 0]

A real RE Manager with Redis executes a plan while plans are added, inserted and removed, and the plan is paused,
resumed, stopped, aborted and followed by another. One in ten actions is asked for a second time by another control,
as after a restart of the agent. At the end the queue is executed. The exit code is 1 if an action was not
acknowledged, or was not done exactly once: by the contents of the queue, the RunStarts, and the changes of state of
the RunEngine.
"""

import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import parser_of, report

from xas_agent.adapters.queueserver import QueueServerControl
from xas_agent.agent.types import Reply

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from deadline import wait_until
from queue_server import QueueServer, client, serving
from unreliable import Unreliable, by_chance

TIMEOUT_S = 60.0
RETRY_S = 0.05
MEASURE = {"name": "measure", "args": [["axis"]]}
CHANCES = {"add": 12, "insert": 4, "remove": 3, "pause": 3, "resume": 3, "stop": 1, "abort": 1}
"""How often each kind of action is chosen among those that the present state permits."""


class Campaign:
    """Actions by chance, and what the queue server should have done."""

    def __init__(self, server: QueueServer, api: Any, address: str, seed: int) -> None:
        self._server = server
        self._api = api
        self._settings = server.settings(retry_s=RETRY_S).model_copy(update={"address": address})
        self._control = QueueServerControl(self._settings)
        self._rng = random.Random(seed)
        self.state = "idle"
        self.queued: dict[str, str] = {}
        """Decisions whose plans should wait in the queue, by the uid of the item."""
        self.done: Counter[str] = Counter()
        """Number of actions by kind."""
        self.states: Counter[str] = Counter()
        """Number of times that the RunEngine should have entered a state."""
        self.starts: list[str] = []
        """Decisions whose plans should have begun a run, in order."""
        self.problems: Counter[str] = Counter()
        self.seconds: list[float] = []

    def act(self) -> None:
        """Choose an action and ask for it."""
        if self.state == "idle":
            kind = "start"
        else:
            refused = {"resume"} if self.state == "running" else {"pause"}
            refused |= set() if self.queued else {"remove"}
            chances = {kind: chance for kind, chance in CHANCES.items() if kind not in refused}
            kind = self._rng.choices(list(chances), list(chances.values()))[0]
        id = f"{kind}-{sum(self.done.values())}"
        self.done[kind] += 1
        getattr(self, f"_{kind}")(id)

    def _start(self, id: str) -> None:
        plan = {"name": "hold", "args": [id]}
        self._ask(id, "queue_plan", {"plan": plan, "position": "front", "start": True})
        self.starts.append(id)
        self.states["running"] += 1
        self.state = "running"
        wait_until(lambda: len(self._server.seen("start")) >= len(self.starts))

    def _add(self, id: str) -> None:
        self._queue(id, "back")

    def _insert(self, id: str) -> None:
        self._queue(id, self._rng.choice(["front", *range(len(self.queued) + 1)]))

    def _queue(self, id: str, position: str | int) -> None:
        self._ask(id, "queue_plan", {"plan": MEASURE, "position": position})
        items = self._api.queue_get()["items"]
        self.queued |= {item["item_uid"]: id for item in items if item["meta"].get("xas_agent_decision") == id}

    def _remove(self, id: str) -> None:
        uid = self._rng.choice(list(self.queued))
        self._ask(id, "queue_plan", {"remove": uid}, again=False)  # which is refused: the item is not there
        del self.queued[uid]

    def _pause(self, id: str) -> None:
        self._ask(id, "pause", {"option": self._rng.choice(["deferred", "immediate"])})
        self.states["paused"] += 1
        self.state = "paused"

    def _resume(self, id: str) -> None:
        self._ask(id, "resume", {})
        self.states["running"] += 1
        self.state = "running"

    def _stop(self, id: str) -> None:
        self._end(id, "stop", "stopping")

    def _abort(self, id: str) -> None:
        self._end(id, "abort", "aborting")
        (returned,) = [item for item in self._api.queue_get()["items"] if "result" in item]
        self._api.item_remove(uid=returned["item_uid"])

    def _end(self, id: str, action: str, state: str) -> None:
        self._ask(id, action, {}, again=False)  # which is refused: no plan is running
        self.states["paused"] += self.state == "running"
        self.states[state] += 1
        self.state = "idle"

    def _ask(self, id: str, action: str, args: dict[str, Any], *, again: bool = True) -> None:
        began = time.monotonic()
        reply = self._control.request(id, action, args, TIMEOUT_S)
        self.seconds.append(time.monotonic() - began)
        self._expect_acknowledged(id, reply)
        if again and self._rng.random() < 0.1:
            self.done["asked again"] += 1
            self._control.close()
            self._control = QueueServerControl(self._settings)  # as after a restart of the agent
            self._expect_acknowledged(id, self._control.request(id, action, args, TIMEOUT_S))

    def _expect_acknowledged(self, id: str, reply: Reply) -> None:
        if reply.status != "acknowledged":
            self.problems["not acknowledged"] += 1
            print(id, reply, file=sys.stderr, flush=True)

    def finish(self) -> None:
        """End the plan in progress, let the manager execute the queue, and compare."""
        if self.state != "idle":
            self._end("last", "stop", "stopping")
        items = self._api.queue_get()["items"]
        found = Counter(item["meta"]["xas_agent_decision"] for item in items)
        self._compare("items in the queue", Counter(self.queued.values()), found)
        if items:
            self._api.queue_start()
            self._api.wait_for_idle(timeout=60 + 3 * len(items))
        self.starts += [item["meta"]["xas_agent_decision"] for item in items]
        self.states["running"] += len(items)
        seen = Counter(doc["xas_agent_decision"] for doc in self._server.seen("start"))
        self._compare("runs", Counter(self.starts), seen)
        history = Counter(item["meta"]["xas_agent_decision"] for item in self._api.history_get()["items"])
        self._compare("items in the history", Counter(self.starts), history)
        states = Counter(new for _, new in self._server.seen("state"))
        for state in ("paused", "running", "stopping", "aborting"):
            self._compare(f"times {state}", Counter({state: self.states[state]}), Counter({state: states[state]}))

    def _compare(self, what: str, expected: Counter[str], found: Counter[str]) -> None:
        missing, extra = expected - found, found - expected
        self.problems[f"{what} missing"] += missing.total()
        self.problems[f"{what} too many"] += extra.total()
        if missing or extra:
            print(what, "missing", dict(missing), "too many", dict(extra), file=sys.stderr, flush=True)


def main() -> None:
    parser = parser_of(__doc__, 7200.0, "time after which no more is asked, s")
    parser.add_argument("--actions", type=int, default=1000)
    parser.add_argument("--lost", type=float, default=0.1, help="probability that a message is lost")
    parser.add_argument("--repeated", type=float, default=0.1, help="probability that a message arrives twice")
    options = parser.parse_args()
    began = time.monotonic()
    with serving() as server, client(server) as api:
        api.environment_open()
        api.wait_for_idle(timeout=60)
        fate = by_chance(options.seed, options.lost, options.repeated)
        with Unreliable(server.address, f"{server.address}0", fate) as network:
            campaign = Campaign(server, api, network.address, options.seed)
            for number in range(options.actions):
                if time.monotonic() - began > options.limit:
                    campaign.problems["actions not asked for within the time limit"] += options.actions - number
                    break
                campaign.act()
                if number % 100 == 99:
                    elapsed = f"{time.monotonic() - began:.0f} s"
                    print(number + 1, elapsed, dict(campaign.problems), file=sys.stderr, flush=True)
            campaign.finish()
    again = campaign.done.pop("asked again")
    seconds = sorted(campaign.seconds)
    figures = {
        "actions": campaign.done.total(),
        **{f"of which {kind}": number for kind, number in sorted(campaign.done.items())},
        "asked again by another control": again,
        "messages passed on": network.counts["passed"],
        "messages lost": network.counts["lost"],
        "messages repeated": network.counts["repeated"],
        "runs": len(campaign.starts),
        "time of an action, median and longest, s": f"{seconds[len(seconds) // 2]:.2f} {seconds[-1]:.2f}",
        "time, s": round(time.monotonic() - began),
    }
    report(figures, campaign.problems)


if __name__ == "__main__":
    main()
