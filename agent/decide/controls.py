"""Several controls as one: each action goes to the control that takes it."""

from collections.abc import Collection, Mapping
from typing import Any

from ..types import Control, Reply, SelectiveControl


def takes(control: Control | None, action: str) -> bool:
    """Return whether a control lists an action among those that it takes."""
    return isinstance(control, SelectiveControl) and action in control.actions


class Controls:
    """Passes each action to the control that lists it, or else to ``other``.

    Parameters
    ----------
    selective : controls that list their actions; if two list the same action, the first one receives it
    other : control that takes all other actions, such as a RunEngine's; it may also list some actions, such as
        ``notify``. None rejects all other actions
    """

    def __init__(self, *selective: SelectiveControl, other: Control | None = None) -> None:
        self._selective = {action: control for control in reversed(selective) for action in control.actions}
        self._other = other
        self._all: tuple[Control, ...] = selective if other is None else (*selective, other)

    @property
    def actions(self) -> Collection[str]:
        """Actions that at least one control lists."""
        others = self._other.actions if isinstance(self._other, SelectiveControl) else ()
        return {*self._selective, *others}

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Request ``action`` from the control that takes it."""
        control = self._selective.get(action, self._other)
        if control is None:
            return Reply("rejected", f"no control takes {action!r}")
        return control.request(id, action, args, timeout)

    def close(self) -> None:
        """Close all controls."""
        for control in self._all:
            control.close()
