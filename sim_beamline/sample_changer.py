"""A simulated robot that brings samples from their places into the beam, doses and heats them."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

NEXT = "next"
"""Stands for the first sample that has not been in the beam."""
_ROOM_C = 25.0
_HOTTEST_C = 1000.0
"""Highest temperature of the heater, °C."""
_COOLING_C_PER_MIN = 60.0
"""Rate at which a sample cools without heater, °C/min."""


def magazine(size: int) -> list[str]:
    """Return the names of the samples of a magazine.

    >>> magazine(2)
    ['A1', 'A2']
    """
    return [f"A{place}" for place in range(1, size + 1)]


class SampleChangerFailed(RuntimeError):  # noqa: N818  named after the event
    """An action was not completed."""


class SampleChanger:
    """Changes samples between measurements: a sample is unloaded only once the beam is off. Thread-safe.

    A sample comes into the beam only once, since it is not fresh afterwards.

    Parameters
    ----------
    samples : sequence of str
        Samples in the order of their places; the first one is in the beam at the start.
    change_s : float
        Duration of a load, an unload or a dose, s.
    """

    def __init__(self, samples: Sequence[str], change_s: float) -> None:
        self._change_s = change_s
        self._changed = threading.Condition()
        self._fresh = list(samples[1:])
        self._sample: str | None = samples[0]
        self._measured: str | None = None
        self._beam_on = False
        self._heater_on = False
        self._ramp = (time.monotonic(), _ROOM_C, _ROOM_C, 1.0)
        """Start (``time.monotonic()``), first temperature and target, °C, and rate, °C/min, of the newest ramp."""

    def refusal(self, action: str, args: Mapping[str, Any]) -> str:
        """Return why an action cannot be done now; empty if it can."""
        with self._changed:
            if action == "load":
                if self._sample is not None:
                    return f"{self._sample} is in the beam; unload it first"
                if args["sample"] not in (self._fresh and [NEXT, *self._fresh]):
                    return f"found sample {args['sample']!r}; left are: {', '.join(self._fresh) or 'none'}"
            elif self._sample is None:
                return "no sample is in the beam"
            if action == "heat" and args["target_c"] > _HOTTEST_C:
                return f"found {args['target_c']:g} °C; the heater reaches {_HOTTEST_C:g} °C"
        return ""

    def do(self, action: str, args: Mapping[str, Any], halted: threading.Event) -> None:
        """Do an action; raise SampleChangerFailed if it is halted before its end."""
        if action == "heat":
            self._heat(args["target_c"], args["ramp_c_per_min"], halted)
            return
        if action == "unload":
            with self._changed:
                self._changed.wait_for(lambda: not self._beam_on or halted.is_set())
        _wait(self._change_s, halted)
        with self._changed:
            if action == "load":
                sample = self._fresh[0] if args["sample"] == NEXT else args["sample"]
                self._fresh.remove(sample)
                self._sample = sample
            elif action == "unload":
                self._sample = None
                self._switch_off()
            self._changed.notify_all()

    def make_safe(self) -> None:
        """Switch the heater off; the sample stays where it is."""
        with self._changed:
            self._switch_off()
            self._changed.notify_all()  # an unload may wait for the beam

    def report(self) -> dict[str, Any]:
        """Return sample, temperature and heater."""
        with self._changed:
            temperature = round(self._temperature(), 2)
            return {"sample": self._sample, "temperature_c": temperature, "heater_on": self._heater_on}

    def next_to_measure(self) -> str:
        """Wait for a sample that has not been measured, and return it."""
        with self._changed:
            while self._sample is None or self._sample == self._measured:
                self._changed.wait()
            return self._sample

    @property
    def has_fresh(self) -> bool:
        """Return whether any sample has not been measured."""
        with self._changed:
            return bool(self._fresh) or self._sample not in (None, self._measured)

    @contextmanager
    def beam(self) -> Iterator[None]:
        """Keep the sample in its place while it is measured."""
        with self._changed:
            self._beam_on, self._measured = True, self._sample
        try:
            yield
        finally:
            with self._changed:
                self._beam_on = False
                self._changed.notify_all()

    def _heat(self, target_c: float, ramp_c_per_min: float, halted: threading.Event) -> None:
        with self._changed:
            first_c = self._temperature()
            self._heater_on = target_c > _ROOM_C
            self._ramp = (time.monotonic(), first_c, max(target_c, _ROOM_C), ramp_c_per_min)
        _wait(60 * abs(max(target_c, _ROOM_C) - first_c) / ramp_c_per_min, halted)

    def _switch_off(self) -> None:
        self._ramp = (time.monotonic(), self._temperature(), _ROOM_C, _COOLING_C_PER_MIN)
        self._heater_on = False

    def _temperature(self) -> float:
        start_s, first_c, target_c, ramp = self._ramp
        change_c = ramp * (time.monotonic() - start_s) / 60
        return min(first_c + change_c, target_c) if target_c > first_c else max(first_c - change_c, target_c)


def _wait(seconds: float, halted: threading.Event) -> None:
    if halted.wait(seconds):
        raise SampleChangerFailed("halted")
