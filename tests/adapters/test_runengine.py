"""With a real RunEngine in the main thread, asked from another."""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from deadline import wait_until
from ophyd import Signal
from ophyd.sim import hw
from ophyd.status import Status

from xas_agent.adapters.runengine import RunEngineControl
from xas_agent.agent.types import RepeatFrame, Reply


class Recorder:
    """The documents so far, and a way to wait for the nth event."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict]] = []
        self._came = threading.Condition()

    def __call__(self, name: str, doc: dict) -> None:
        with self._came:
            self.all.append((name, doc))
            self._came.notify_all()

    def events(self) -> list[int]:
        return [doc["seq_num"] for name, doc in self.all if name == "event"]

    def wait(self, count: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.events()) >= count, 20)

    def more_within(self, seconds: float) -> bool:
        with self._came:
            return self._came.wait(seconds)


@pytest.fixture
def RE() -> RunEngine:  # noqa: N802 - its name everywhere
    return RunEngine({})


@pytest.fixture
def documents(RE) -> Recorder:
    recorder = Recorder()
    RE.subscribe(recorder)
    return recorder


@pytest.fixture
def control(RE) -> Iterator[RunEngineControl]:
    with closing(RunEngineControl(RE)) as control:
        yield control


@contextmanager
def meanwhile(requests: Callable[[], None]) -> Iterator[None]:
    """Run ``requests`` in another thread while the plan runs in this one; its failures are this test's."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            requests()
        except BaseException as error:  # raised again below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(20)
    if failures:
        raise failures[0]


det, motor = hw().det, hw().motor


def slow_step(detectors, step, pos_cache, take_reading=None):
    yield from bps.one_nd_step(detectors, step, pos_cache)
    yield from bps.sleep(0.03)


@pytest.mark.parametrize(
    "plan",
    [
        lambda: bp.count([det], 8, delay=0.05),
        lambda: bp.scan([det], motor, 0, 1, 8, per_step=slow_step),
    ],
)
def test_pause_and_resume_without_the_call_returning(RE, documents, control, plan):
    def requests():
        documents.wait(2)
        assert control.request("1", "pause", {}, 5) == Reply("acknowledged", "paused")
        assert not documents.more_within(0.3)
        assert control.request("2", "pause", {}, 5) == Reply("acknowledged", "already paused")
        assert control.request("3", "resume", {}, 5) == Reply("acknowledged", "resumed")

    with meanwhile(requests):
        assert len(RE(plan())) == 1
    assert sorted(set(documents.events())) == list(range(1, 9))
    assert documents.all[-1][1]["exit_status"] == "success"


@pytest.mark.parametrize("paused", [False, True])
def test_stop_ends_the_plan_cleanly(RE, documents, control, paused):
    cleaned = []

    def clean_up():
        cleaned.append(True)
        yield from bps.null()

    def requests():
        documents.wait(2)
        if paused:
            assert control.request("0", "pause", {}, 5).status == "acknowledged"
        assert control.request("1", "stop", {}, 5) == Reply("acknowledged", "stopped")

    with meanwhile(requests), pytest.raises(RunEngineInterrupted):
        RE(bpp.finalize_wrapper(bp.count([det], 1000, delay=0.02), clean_up()))
    assert cleaned == [True]
    name, stop = documents.all[-1]
    assert name == "stop"
    assert stop["exit_status"] == "success"
    assert max(documents.events()) < 1000
    assert RE.state == "idle"
    RE(bp.count([det], 1))  # the next plan runs as if nothing had been


@pytest.mark.parametrize("action", ["pause", "resume", "stop"])
def test_with_nothing_running_it_rejects(control, action):
    assert control.request("1", action, {}, 5) == Reply("rejected", "no plan is running")


def test_what_else_is_rejected(RE, documents, control):
    def requests():
        documents.wait(1)
        assert control.request("1", "resume", {}, 5) == Reply("rejected", "the plan is not paused")
        assert control.request("2", "explode", {}, 5) == Reply("rejected", "a RunEngine cannot 'explode'")
        assert control.request("3", "notify", {"text": "OS 3.5"}, 5) == Reply("acknowledged")

    with meanwhile(requests):
        RE(bp.count([det], 10, delay=0.03))


def test_a_plan_without_a_checkpoint_is_not_aborted_by_a_pause(RE, documents, control):
    cleared, answered = threading.Event(), threading.Event()

    def plan():
        yield from bps.clear_checkpoint()
        cleared.set()
        while not answered.is_set():
            yield from bps.sleep(0.01)

    def requests():
        assert cleared.wait(5)
        reply = control.request("1", "pause", {}, 5)
        answered.set()
        assert "cleared its checkpoint" in reply.reason

    with meanwhile(requests):
        RE(plan())


def test_a_plan_paused_at_the_prompt_is_its_users(RE, documents, control):
    with pytest.raises(RunEngineInterrupted):
        RE(bpp.pchain(bps.checkpoint(), bps.pause(), bps.null()))
    for action in ("pause", "resume", "stop"):
        reply = control.request(action, action, {}, 5)
        assert reply.status == "rejected"
        assert "prompt" in reply.reason
    RE.resume()


def test_a_pause_outlives_neither_abort_nor_its_plan(RE, documents, control):
    """Paused by the agent, then by its user, who aborts: the next plan starts unpaused."""

    def requests():
        documents.wait(1)
        assert control.request("1", "pause", {}, 5).status == "acknowledged"
        RE.request_pause()

    with meanwhile(requests), pytest.raises(RunEngineInterrupted):
        RE(bp.count([det], 1000, delay=0.02))
    assert "prompt" in control.request("2", "resume", {}, 5).reason
    RE.abort()
    assert control.request("3", "resume", {}, 5) == Reply("rejected", "no plan is running")
    RE(bp.count([det], 2))


def test_a_pause_that_expired_does_not_happen_later(RE, documents, control):
    """The plan's loop is held up for longer than the request waits."""
    held, answered, replies = threading.Event(), threading.Event(), []

    def hold_up(name, doc):
        if name == "event" and doc["seq_num"] == 3:
            held.set()
            answered.wait(5)

    def requests():
        held.wait(5)
        replies.append(control.request("1", "pause", {}, 0.1))
        answered.set()

    RE.subscribe(hold_up)
    with meanwhile(requests):
        RE(bp.count([det], 6))
    assert replies[0].status == "expired"
    assert set(documents.events()) == set(range(1, 7))


def test_pauses_that_come_together_are_one(RE, documents, control):
    """They wait for the plan's loop, which is held up, and reach it at once."""
    held, waiting, replies, failures = threading.Event(), threading.Event(), list[Reply](), list[Any]()

    def hold_up():
        RE.loop.set_exception_handler(lambda loop, context: failures.append(context))
        held.set()
        waiting.wait(5)

    def pause(n):
        replies.append(control.request(str(n), "pause", {}, 5))

    def requests():
        documents.wait(2)
        RE.loop.call_soon_threadsafe(hold_up)
        held.wait(5)
        ready = RE.loop._ready  # pyright: ignore[reportAttributeAccessIssue]
        before = len(ready)
        threads = [threading.Thread(target=pause, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(ready) > before)
        waiting.set()
        for thread in threads:
            thread.join(10)
        assert control.request("4", "resume", {}, 5) == Reply("acknowledged", "resumed")

    with meanwhile(requests):
        RE(bp.count([det], 8, delay=0.02))
    gc.collect()
    assert failures == []
    assert sorted(reply.reason for reply in replies) == ["already paused", "already paused", "paused"]
    assert documents.all[-1][1]["exit_status"] == "success"


@pytest.mark.parametrize("action", ["stop", "resume"])
def test_what_cannot_be_taken_back_says_so_when_it_expires(RE, documents, control, action):
    """The plan's loop is held up for longer than the request waits; what was asked happens afterwards."""
    held, answered, replies = threading.Event(), threading.Event(), []

    def hold_up():
        held.set()
        answered.wait(5)

    def requests():
        documents.wait(2)
        if action == "resume":
            assert control.request("0", "pause", {}, 5).status == "acknowledged"
        RE.loop.call_soon_threadsafe(hold_up)
        held.wait(5)
        replies.append(control.request("1", action, {}, 0.1))
        answered.set()

    with meanwhile(requests):
        if action == "stop":
            with pytest.raises(RunEngineInterrupted):
                RE(bp.count([det], 1000, delay=0.02))
        else:
            RE(bp.count([det], 5, delay=0.02))
    assert replies == [Reply("expired", "requested, but not confirmed within 0.1 s")]
    assert documents.all[-1][1]["exit_status"] == "success"


def test_the_engines_own_thread_may_not_wait_for_itself(RE, control):
    replies = []
    RE.subscribe(lambda name, doc: replies.append(control.request("1", "stop", {}, 5)), "start")
    RE(bp.count([det], 1))
    assert replies[0].status == "rejected"
    assert "own thread" in replies[0].reason


class _LostLink(RunEngine):
    """Its ``stop`` fails after the plan was stopped."""

    def stop(self):
        super().stop()
        raise OSError("link lost")


class _SlowStop(RunEngine):
    """Its ``stop`` comes when the plan has ended."""

    def stop(self):
        wait_until(lambda: self.state.is_idle)
        return super().stop()


def test_a_stop_that_fails_once_asked_leaves_the_outcome_open():
    RE, documents, replies = _LostLink({}), Recorder(), []
    RE.subscribe(documents)
    with closing(RunEngineControl(RE)) as control:

        def requests():
            documents.wait(1)
            replies.append(control.request("1", "stop", {}, 10))

        with meanwhile(requests), pytest.raises(RunEngineInterrupted):
            RE(bp.count([det], 1000, delay=0.02))
    assert replies == [Reply("expired", "requested, outcome unknown: OSError: link lost")]


def test_a_stop_after_the_plan_has_ended_is_refused():
    RE, documents, replies = _SlowStop({}), Recorder(), []
    RE.subscribe(documents)
    with closing(RunEngineControl(RE)) as control:

        def requests():
            documents.wait(1)
            replies.append(control.request("1", "stop", {}, 10))

        with meanwhile(requests):
            RE(bp.count([det], 3, delay=0.02))
    assert replies == [Reply("rejected", "RunEngine is already idle.")]


def test_after_close_it_rejects(RE):
    control = RunEngineControl(RE)
    control.close()
    assert control.request("1", "stop", {}, 5) == Reply("rejected", "the control is closed")


class _Furnace(Signal):
    """Takes temperatures up to 900."""

    def set(self, value: float, **kwargs: Any) -> Any:
        if value > 900:
            raise ValueError("the furnace reaches 900")
        return super().set(value, **kwargs)


@pytest.fixture
def furnace() -> _Furnace:
    return _Furnace(name="furnace", value=20.0)


def _ask(RE: RunEngine, control: RunEngineControl, plan: Any, *asked: tuple[str, dict[str, Any]]) -> list[Reply]:
    """Answers to requests that are made one after the other while the plan runs, once it has measured one event."""
    documents, replies = Recorder(), list[Reply]()
    RE.subscribe(documents)

    def requests():
        documents.wait(1)
        replies.extend(control.request(str(n), action, args, 10) for n, (action, args) in enumerate(asked))
        control.request("last", "stop", {}, 10)

    with meanwhile(requests), suppress(RunEngineInterrupted):
        RE(plan)
    return replies


class _Stage(Signal):
    """Moves until it is stopped."""

    stopped = 0

    def set(self, value: float, **kwargs: Any) -> Any:
        return Status()

    def stop(self, *, success: bool = False) -> None:
        self.stopped += 1


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_signal_is_set_while_the_plan_goes_on(RE, furnace, checkpoints):
    """Nothing is measured again, and no device of the plan is stopped."""
    stage, stopped = _Stage(name="stage"), []

    def plan():
        yield from bps.open_run()
        yield from bps.abs_set(stage, 1)
        if not checkpoints:
            yield from bps.clear_checkpoint()
        while True:
            if checkpoints:
                yield from bps.checkpoint()
            yield from bps.trigger_and_read([det, furnace])
            yield from bps.sleep(0.02)

    with closing(RunEngineControl(RE, {"furnace": furnace})) as control:
        documents, replies = Recorder(), []
        RE.subscribe(documents)

        def requests():
            documents.wait(2)
            replies.append(control.request("1", "set", {"signal": "furnace", "value": 350}, 10))
            documents.wait(len(documents.events()) + 3)
            stopped.append(stage.stopped)
            control.request("2", "stop", {}, 10)

        with meanwhile(requests), pytest.raises(RunEngineInterrupted):
            RE(plan())
    assert replies == [Reply("acknowledged", "furnace was asked to go to 350")]
    assert stopped == [0]
    assert documents.events() == [*range(1, len(documents.events()) + 1)]
    values = [doc["data"]["furnace"] for name, doc in documents.all if name == "event"]
    assert values == sorted(values)
    assert values[0] == 20
    assert values[-1] == 350


def test_a_device_that_blocks_in_set_leaves_the_outcome_open(RE):
    held, answered = threading.Event(), threading.Event()

    class Blocking(_Furnace):
        def set(self, value: float, **kwargs: Any) -> Any:
            held.set()
            answered.wait(5)
            return super().set(value, **kwargs)

    blocking = Blocking(name="furnace", value=20.0)
    documents, replies = Recorder(), list[Reply]()
    RE.subscribe(documents)
    with closing(RunEngineControl(RE, {"furnace": blocking})) as control:

        def requests():
            documents.wait(1)
            replies.append(control.request("1", "set", {"signal": "furnace", "value": 30}, 0.1))
            answered.set()
            documents.wait(len(documents.events()) + 1)
            control.request("2", "stop", {}, 10)

        with meanwhile(requests), pytest.raises(RunEngineInterrupted):
            RE(bp.count([det], 1000, delay=0.02))
    assert held.is_set()
    expected = "the device did not return from set within 0.1 s, outcome unknown"
    assert replies == [Reply("expired", expected)]


def test_a_set_that_expired_before_its_turn_does_not_happen_later(RE, furnace):
    held, answered, documents, replies = threading.Event(), threading.Event(), Recorder(), list[Reply]()
    RE.subscribe(documents)

    def hold_up():
        held.set()
        answered.wait(5)

    with closing(RunEngineControl(RE, {"furnace": furnace})) as control:

        def requests():
            documents.wait(1)
            RE.loop.call_soon_threadsafe(hold_up)
            held.wait(5)
            replies.append(control.request("1", "set", {"signal": "furnace", "value": 30}, 0.1))
            answered.set()
            documents.wait(len(documents.events()) + 2)
            control.request("2", "stop", {}, 10)

        with meanwhile(requests), pytest.raises(RunEngineInterrupted):
            RE(bp.count([det], 1000, delay=0.02))
    assert replies[0].status == "expired"
    assert furnace.get() == 20


def test_with_nothing_running_nothing_is_set(RE, furnace):
    with closing(RunEngineControl(RE, {"furnace": furnace})) as control:
        reply = control.request("1", "set", {"signal": "furnace", "value": 30}, 5)
    assert reply == Reply("rejected", "no plan is running")
    assert furnace.get() == 20


def test_a_signal_is_set_while_the_plan_is_paused(RE, furnace):
    with closing(RunEngineControl(RE, {"furnace": furnace})) as control:
        value = {"signal": "furnace", "value": 350}
        replies = _ask(RE, control, bp.count([det], 1000, delay=0.02), ("pause", {}), ("set", value), ("resume", {}))
    assert [reply.status for reply in replies] == ["acknowledged"] * 3
    assert furnace.get() == 350


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ({"signal": "furnace", "value": 950}, "furnace refused 950: ValueError: the furnace reaches 900"),
        ({"signal": "oven", "value": 1}, "found signal 'oven'; this RunEngine's control was given: furnace"),
        ({"signal": "furnace"}, "args of set: key value"),
        ({"signal": "furnace", "value": "hot"}, "args of set: key value"),
    ],
)
def test_a_value_that_cannot_be_set_does_not_harm_the_plan(RE, furnace, args, reason):
    with closing(RunEngineControl(RE, {"furnace": furnace})) as control:
        (reply,) = _ask(RE, control, bp.count([det], 1000, delay=0.02), ("set", args))
    assert reply.status == "rejected"
    assert reason in reply.reason
    assert furnace.get() == 20


def test_a_device_that_fails_later_is_logged_and_the_plan_goes_on(RE, caplog):
    class Stuck(_Furnace):
        def set(self, value: float, **kwargs: Any) -> Any:
            status = Status()
            status.set_exception(RuntimeError("stuck"))
            return status

    stuck = Stuck(name="furnace", value=20.0)
    with closing(RunEngineControl(RE, {"furnace": stuck})) as control, caplog.at_level("WARNING"):
        (reply,) = _ask(RE, control, bp.count([det], 1000, delay=0.02), ("set", {"signal": "furnace", "value": 30}))
        wait_until(lambda: "not reached" in caplog.text)
    assert reply.status == "acknowledged"


def test_a_plan_that_repeats_frames_is_asked_to(RE):
    asked: list[RepeatFrame] = []
    with closing(RunEngineControl(RE, repeat=asked.append)) as control:
        plan = bp.count([det], 1000, delay=0.02)
        wanted = {"count_factor": 4, "run": "r1", "frame": 7}
        replies = _ask(RE, control, plan, ("repeat_frame", wanted), ("repeat_frame", {"times": 4}))
        assert control.request("3", "repeat_frame", {}, 5) == Reply("rejected", "no plan is running")
    assert [reply.status for reply in replies] == ["acknowledged", "rejected"]
    assert asked == [RepeatFrame(count_factor=4, run="r1", frame=7)]


def test_without_what_repeats_a_frame_it_is_refused(RE, control):
    (reply,) = _ask(RE, control, bp.count([det], 1000, delay=0.02), ("repeat_frame", {}))
    assert reply == Reply("rejected", "this RunEngine's control was not given what repeats a frame")
