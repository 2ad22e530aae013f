"""Actions on the running plan. Each first reads the manager's state, and requests only what is still missing."""

from typing import Literal

from ...agent.types import Reply
from .link import ManagerLink


def pause(link: ManagerLink, option: Literal["deferred", "immediate"]) -> Reply:
    """Pause the running plan and wait until it is paused; ``deferred`` waits for the plan's next checkpoint."""
    plan, asked = None, False
    for state in link.watch():
        if state.manager_state == "paused":
            return Reply("acknowledged", f"paused; {state}")
        if plan is not None and state.running_item_uid != plan:
            return Reply("expired", f"the plan ended before it paused; {state}")
        if state.refusal is not None:
            return Reply("rejected", f"{state.refusal}; {state}")
        plan = state.running_item_uid
        if plan is not None and not (state.pause_pending and (asked or option == "deferred")):
            link.act("re_pause", option=option)
            asked = True
    raise AssertionError("watch() ends only with an exception")


def resume(link: ManagerLink) -> Reply:
    """Resume the paused plan; if a pause is pending, wait for it first."""
    for state in link.watch():
        if state.manager_state == "paused":
            if link.act("re_resume"):
                return Reply("acknowledged", f"resumed; {link.look()}")
        elif link.acted or (state.executing and not state.pause_pending):
            return Reply("acknowledged", f"{'resumed' if link.acted else 'the plan is not paused'}; {state}")
        elif state.refusal is not None:
            return Reply("rejected", f"{state.refusal}; {state}")
    raise AssertionError("watch() ends only with an exception")


def end(link: ManagerLink, verb: Literal["stop", "abort"]) -> Reply:
    """Pause the running plan, stop or abort it, and wait for its end; the manager ends only a paused plan."""
    plan, pausing, ending = None, False, False
    for state in link.watch():
        if plan is not None and state.running_item_uid != plan:
            return Reply("acknowledged", f"the plan has ended; {state}")
        if state.refusal is not None:
            return Reply("rejected", f"{state.refusal}; {state}")
        plan = state.running_item_uid
        if state.manager_state == "paused":
            link.act(f"re_{verb}")
            ending = True  # even if refused or unanswered: a plan that then runs is ending, or a user resumed it
        elif plan is not None and not ending and not (pausing and state.pause_pending):
            link.act("re_pause", option="immediate")
            pausing = True
    raise AssertionError("watch() ends only with an exception")
