"""What is set aside for one reason, frame after frame, is told once in a run and counted at its end."""

from logs import capture_logs

from xas_agent.agent.told import Told
from xas_agent.agent.types import Reason, SetAside


def note(n: int, detail: str, run: str = "a", reason: Reason = Reason.NO_MODEL) -> SetAside:
    return SetAside(run, f"f{n}", 0.0, reason, detail, n)


def test_each_run_and_reason_is_told_once_and_the_others_are_counted() -> None:
    told = Told()
    with capture_logs() as logs:
        for n in range(1, 159):
            told.tell(note(n, "no model for Sc K"))
        told.tell(note(1, "no model for Sc K", run="b"))
        told.forget("a")
        told.close()
    warned = [(line["event"], line.get("run"), line["count"]) for line in logs if line["log_level"] == "warning"]
    assert warned == [
        ("set aside", None, 1),
        ("set aside", None, 1),
        ("further set aside", "a", 157),
    ]


def test_details_that_differ_from_frame_to_frame_are_told_up_to_ten() -> None:
    told = Told()
    with capture_logs() as logs:
        for n in range(1, 41):
            told.tell(note(n, f"{n} points, at least 50 needed", reason=Reason.TOO_FEW_POINTS))
        told.close()
    warned = [line["count"] for line in logs if line["log_level"] == "warning"]
    assert warned == [1] * 10 + [30]


def test_runs_that_end_before_their_last_notes_are_not_kept_for_ever() -> None:
    told = Told()
    with capture_logs() as logs:
        for n in range(3000):
            told.tell(note(n, "late", run=f"r{n}"))
        told.tell(note(0, "late", run="r0"))  # forgotten: told again
    assert sum(line["log_level"] == "warning" for line in logs) == 3001
