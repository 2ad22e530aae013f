"""Actions on the queue: adding a plan once, however often this is requested, and removing items."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, StrictInt, model_validator

from ...agent.types import Reply
from .link import ENVIRONMENT_CLOSED, ManagerLink, ManagerState, Refused

DECISION = "xas_agent_decision"
"""Key of the decision's id in a plan's metadata, by which the plan is found; the RunStart contains it, too."""


class Plan(BaseModel):
    """A plan as the queue server accepts it, with devices given by name."""

    model_config = ConfigDict(extra="forbid")

    name: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    meta: dict[str, Any] = {}


class QueueArgs(BaseModel):
    """Arguments of ``queue_plan``: a plan to add, or an item to remove."""

    model_config = ConfigDict(extra="forbid")

    plan: Plan | None = None
    position: Literal["front", "back"] | StrictInt = "back"
    start: bool = False
    remove: str | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.plan is None) == (self.remove is None):
            raise ValueError("expected either plan or remove")
        if self.remove is not None and {"position", "start"} & self.model_fields_set:
            raise ValueError("position and start have no effect beside remove")
        return self


class PlanHistory:
    """The decisions whose plans the manager has finished; read again only after a change."""

    def __init__(self) -> None:
        self._read: tuple[str, frozenset[str | None]] = "", frozenset()
        """The history's uid and its decisions, stored together because two threads may read them."""

    def __call__(self, link: ManagerLink) -> frozenset[str | None]:
        uid, decisions = self._read
        if link.look().plan_history_uid != uid:
            answer = link.ask("history_get")
            decisions = frozenset(_decision_of(item) for item in answer["items"])
            self._read = answer["plan_history_uid"], decisions
        return decisions


def add(link: ManagerLink, history: PlanHistory, id: str, args: QueueArgs) -> Reply:
    """Add the plan of a decision unless it is queued, runs or has run; start the queue if requested."""
    assert args.plan is not None
    where = _find(link, history, id)
    if where is None and args.start and (refusal := _why_no_start(link.look())) is not None:
        return Reply("rejected", f"{refusal}; {link.state}")
    item = {"item_type": "plan", **args.plan.model_dump(), "meta": {**args.plan.meta, DECISION: id}}
    user = {"user": link.settings.user, "user_group": link.settings.user_group}
    while where is None:
        added = link.act("queue_item_add", settle_s=0, item=item, pos=args.position, **user)
        where = _find(link, history, id, remove_repeats=True)
        if where is None and added:
            where = "was queued, and has been removed"
    if args.start and where == "is queued":
        try:
            where = _start(link, history, id)
        except Refused as refused:
            return Reply("expired", f"the plan is queued, but the queue did not start: {refused}; {link.state}")
    return Reply("acknowledged", f"the plan {where}; {link.look()}")


def remove(link: ManagerLink, uid: str) -> Reply:
    """Remove an item from the queue."""
    while True:
        queue = link.ask("queue_get")
        if queue["running_item"].get("item_uid") == uid:
            return Reply("rejected", f"the item {uid} is running; {link.look()}")
        if not any(item["item_uid"] == uid for item in queue["items"]):
            break
        if link.act("queue_item_remove", settle_s=0, uid=uid):
            return Reply("acknowledged", f"removed; {link.look()}")
    # An answer may have been lost, and the item may have been removed, or have run meanwhile.
    if link.acted and not any(item["item_uid"] == uid for item in link.ask("history_get")["items"]):
        return Reply("acknowledged", f"removed; {link.look()}")
    return Reply("rejected", f"the queue has no item {uid}; {link.look()}")


def _find(link: ManagerLink, history: PlanHistory, id: str, *, remove_repeats: bool = False) -> str | None:
    """Return where the plan of a decision is; None if it is nowhere.

    The search follows the direction in which items move, so that it cannot miss the plan. A message repeated by the
    network adds the plan twice; surplus copies are removed before they can start.
    """
    queue = link.ask("queue_get")
    # An aborted plan has run; the manager puts it back into the queue with its result.
    queued = [item["item_uid"] for item in queue["items"] if _decision_of(item) == id and "result" not in item]
    running = _decision_of(queue["running_item"]) == id
    ran = not running and (remove_repeats or not queued) and id in history(link)
    if remove_repeats and (repeats := queued if running or ran else queued[1:]):
        link.ask("queue_item_remove_batch", uids=repeats)
    return "is running" if running else "has run" if ran else "is queued" if queued else None


def _start(link: ManagerLink, history: PlanHistory, id: str) -> str | None:
    """Start the queue while a decision's plan waits in it; return where the plan is."""
    for state in link.watch():
        where = _find(link, history, id)
        if state.executing or where != "is queued" or link.act("queue_start"):
            return where
    raise AssertionError("watch() ends only with an exception")


def _why_no_start(state: ManagerState) -> str | None:
    if not state.worker_environment_exists:
        return ENVIRONMENT_CLOSED
    return "the queue is paused: resume it" if state.manager_state == "paused" else None


def _decision_of(item: Mapping[str, Any]) -> str | None:
    """Return the id of the decision that queued an item."""
    meta = item.get("meta")
    return meta.get(DECISION) if isinstance(meta, Mapping) else None
