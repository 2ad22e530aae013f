"""Signals that come while a session starts."""

import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from xas_agent.app.signals import ENDED_EARLY, SIGNALS, StartUp


@pytest.fixture(autouse=True)
def earlier_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_start_with_code_0(number: int, capfd: pytest.CaptureFixture[str]):
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("ignored in these tests, as under nohup")
    StartUp()
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(number)
        assert ended.value.code == 0
    assert capfd.readouterr().err == ENDED_EARLY


def test_a_signal_whose_exception_is_dropped_ends_the_start_nevertheless():
    start_up = StartUp()
    with suppress(SystemExit):  # as Python does in a finaliser
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        start_up.over()


def test_a_signal_waits_for_what_must_not_be_interrupted(capfd: pytest.CaptureFixture[str]):
    start_up, steps = StartUp(), list[str]()

    def imports() -> None:
        with start_up.held():
            signal.raise_signal(signal.SIGTERM)
            steps.append("goes on")

    with pytest.raises(SystemExit) as ended:
        imports()
    assert (ended.value.code, steps) == (0, ["goes on"])
    assert capfd.readouterr().err == ENDED_EARLY


def test_after_the_start_nothing_is_said_of_it(capfd: pytest.CaptureFixture[str]):
    StartUp().over()
    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGTERM)
    assert not capfd.readouterr().err
