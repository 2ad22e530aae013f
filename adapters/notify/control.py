"""A control that notifies destinations of decisions."""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal

from ...agent.types import InputError, Reply, get_logger
from .delivery import Refused, deliver
from .settings import Destination

log = get_logger()


class Notifications:
    """Sends each notification to all destinations at once; a slow one does not delay the others.

    A notification is ``acknowledged`` if every destination has accepted it in time, ``rejected`` if some have
    certainly not, and ``expired`` if this is unknown for any; the reason names them. Nothing is sent twice.

    Parameters
    ----------
    destinations : sequence of Destination

    Raises
    ------
    InputError
        The environment variable of a password is not set.
    """

    actions = ("notify",)

    def __init__(self, destinations: Sequence[Destination]) -> None:
        self._destinations = [(destination, _password(destination)) for destination in destinations]
        self._busy: dict[int, Future[None]] = {}
        """The newest delivery to each destination, by the destination's index."""
        self._closed = False

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Send a notification; never raises. Each destination has its own time limit, which replaces ``timeout``."""
        if self._closed:
            return Reply("rejected", "the control is closed")
        began = time.monotonic()
        sent = [self._start(n, args) for n in range(len(self._destinations))]
        failures: list[tuple[str, Reply]] = []  # two destinations may share a name, as two channels of a chat
        for (destination, _), delivery in zip(self._destinations, sent, strict=True):
            left = began + destination.timeout_s - time.monotonic()
            if (failure := _failure_of(delivery, left, destination.timeout_s)) is not None:
                log.warning("notification failed", destination=destination.name, id=id, reason=failure.reason)
                failures.append((destination.name, failure))
        if not failures:
            return Reply("acknowledged", ", ".join(destination.name for destination, _ in self._destinations))
        unknown = any(failure.status == "expired" for _, failure in failures)
        status: Literal["expired", "rejected"] = "expired" if unknown else "rejected"
        return Reply(status, "; ".join(f"{name}: {failure.reason}" for name, failure in failures))

    def close(self) -> None:
        """Reject further notifications."""
        self._closed = True

    def _start(self, number: int, message: Mapping[str, Any]) -> "Future[None]":
        """Begin a delivery on a separate thread, unless an earlier one to the same destination hangs."""
        delivery: Future[None] = Future()
        earlier = self._busy.get(number)
        if earlier is not None and not earlier.done():
            delivery.set_exception(Refused("still busy with an earlier notification"))
            return delivery
        self._busy[number] = delivery

        def work() -> None:
            try:
                deliver(self._destinations[number][0], message, self._destinations[number][1])
            except BaseException as error:
                delivery.set_exception(error)
            else:
                delivery.set_result(None)

        # A daemon, so that a hanging destination does not keep the process from ending.
        threading.Thread(target=work, name="notification", daemon=True).start()
        return delivery


def _failure_of(delivery: "Future[None]", left_s: float, timeout_s: float) -> Reply | None:
    """Wait for a delivery; return None if it succeeded."""
    try:
        delivery.result(max(0.0, left_s))
    except Refused as error:
        return Reply("rejected", str(error))
    except TimeoutError:
        return Reply("expired", f"did not take it within {timeout_s:g} s")
    except Exception as error:
        return Reply("expired", f"outcome unknown: {type(error).__name__}: {error}")
    return None


def _password(destination: Destination) -> str | None:
    variable = None if destination.email is None else destination.email.password_env
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise InputError(f"notify: the variable {variable} is not set, expected the password of {destination.name}")
    return os.environ[variable]
