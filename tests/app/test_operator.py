"""Commands of a person to a running session: approval, orders, emergency stop, and the audit of them."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_until
from forked import run_command
from logs import capture_logs
from watched import Watched, WhiteLine

from xas_agent import XASAgent
from xas_agent.agent.types import InputError, Reply
from xas_agent.app.ask import Refused, ask, sockets_folder
from xas_agent.app.config import Config
from xas_agent.app.operator import OperatorServer, short_id
from xas_agent.app.output.audit import Audit, check_audit

RULE = {"name": "high", "trigger": {"kind": "threshold", "quantity": "OS", "above": 1.5}, "action": "stop"}
CONFIRM = {"enabled": True, "allow": ["stop"], "authority": "confirm"}


class Beamline:
    """A control that carries everything out, and remembers it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        self.done.append(action)
        return Reply("acknowledged")

    def close(self) -> None:
        pass


class Attended:
    """An agent with a person who can reach it."""

    def __init__(
        self, folder: Path, rule: str = "stop", args: Mapping[str, Any] | None = None, **control: Any
    ) -> None:
        self.beamline, self.audit = Beamline(), Audit(folder / "audit.jsonl")
        config = Config.model_validate(
            {
                "rules": [{**RULE, "action": rule, "args": args or {}, "max_times": 9}],
                "control": {**CONFIRM, **control},
            }
        )
        self.agent = XASAgent(config, [WhiteLine("Co")], self.beamline)
        self.statuses: list[str] = []
        self.agent.subscribe(self.audit)
        self.agent.subscribe(self.note)
        self.server = OperatorServer(self.agent, lambda: {"out": str(folder)}, lambda: {"frames": 1}, self.audit)
        self.server.start()

    def close(self) -> None:
        self.server.close()
        self.agent.close()
        self.audit.close()

    def note(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "event" and "status" in doc["data"]:
            self.statuses.append(doc["data"]["status"])

    def measure(self, *heights: float) -> Watched:
        watched = Watched("Co", *heights)
        for document in watched.docs:
            self.agent(*document)
        return watched


pytestmark = pytest.mark.usefixtures("own_sockets")


@pytest.fixture
def attended(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Attended]:
    made = Attended(tmp_path, **getattr(request, "param", {}))
    yield made
    made.close()


def with_control(**control: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("attended", [control], indirect=True)


def waiting() -> list[dict[str, Any]]:
    wait_until(lambda: bool(ask("pending")["pending"]))
    return ask("pending")["pending"]


def test_a_person_approves_and_the_audit_keeps_it(attended: Attended, tmp_path: Path):
    attended.measure(1.0, 2.0)
    [decision] = waiting()
    assert attended.beamline.done == []
    assert ask("approve", id=decision["id"][:6], by="ada")["decision"]["status_reason"] == "approved by ada"
    wait_until(lambda: attended.statuses == ["proposed", "approved", "sent", "acknowledged"])
    assert attended.beamline.done == ["stop"]
    wait_until(lambda: (tmp_path / "audit.jsonl").read_text().count("\n") == 5)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    [command] = [line for line in lines if "command" in line]
    assert (command["command"], command["by"], command["id"]) == ("approve", "ada", decision["id"])
    assert command["outcome"] == "approved approved by ada"
    assert sorted(line["status"] for line in lines if "status" in line) == sorted(attended.statuses)
    assert check_audit(tmp_path / "audit.jsonl") == len(lines) == 5


def test_a_rejected_decision_is_never_sent(attended: Attended):
    attended.measure(1.0, 2.0)
    waiting()
    ask("reject", why="too early", by="ada")
    wait_until(lambda: attended.statuses == ["proposed", "rejected"])
    with pytest.raises(Refused, match="0 decisions wait"):
        ask("approve")
    assert attended.beamline.done == []


def test_the_log_says_who_answered_a_decision_and_why(attended: Attended):
    with capture_logs() as logs:
        for answer in (
            {"command": "approve", "by": "ada"},
            {"command": "reject", "by": "bob", "why": "too early"},
            {"command": "halt", "by": "eve", "why": "smoke"},
        ):
            attended.measure(1.0, 2.0)
            waiting()
            ask(**answer)
    said = [line for line in logs if line["event"] in ("decision approved", "decision rejected")]
    assert [(line["event"], line["by"], line.get("why")) for line in said] == [
        ("decision approved", "ada", None),
        ("decision rejected", "bob", "too early"),
        ("decision rejected", "eve", "emergency stop: smoke"),
    ]
    assert {(line["rule"], line["action"]) for line in said} == {("high", "stop")}


@with_control(rule="set", args={"signal": "furnace", "value": 320}, allow=["set"], settable={"furnace": [20, 400]})
def test_a_person_sees_the_arguments_before_they_approve_them(attended: Attended):
    attended.measure(1.0, 2.0)
    [decision] = waiting()
    assert decision["what"] == "set (signal furnace, value 320)"
    assert ask("approve", by="ada")["decision"]["what"] == decision["what"]


@with_control(rule="repeat_frame", allow=["repeat_frame"])
@pytest.mark.parametrize("later", [0, 2])
def test_a_frame_that_is_not_the_last_one_any_more_is_not_repeated(attended: Attended, later: int):
    answered: set[int] = set()
    attended.agent.subscribe(lambda name, doc: answered.add(doc.get("data", {}).get("frame_seq_num", 0)))
    attended.measure(2.0, *[2.0] * later)
    waiting()
    wait_until(lambda: 1 + later in answered)
    ask("approve", by="ada")
    end = ["rejected"] if later else ["sent", "acknowledged"]
    wait_until(lambda: attended.statuses == ["proposed", "approved", *end])
    assert attended.beamline.done == ([] if later else ["repeat_frame"])


@with_control(confirm_within_s=0.2)
def test_an_unanswered_decision_expires(attended: Attended):
    attended.measure(1.0, 2.0)
    wait_until(lambda: attended.statuses == ["proposed", "expired"])
    assert attended.beamline.done == []


@with_control(authority="act", allow=["pause"])
def test_a_forbidden_action_is_refused_and_audited(attended: Attended, tmp_path: Path):
    attended.measure(1.0, 2.0)
    wait_until(lambda: attended.statuses == ["proposed", "rejected"])
    assert attended.beamline.done == []
    audit = tmp_path / "audit.jsonl"
    wait_until(lambda: audit.is_file() and "not among the allowed actions" in audit.read_text())


@with_control(authority="act", allow=["pause"], rule="pause")
def test_after_an_emergency_stop_no_rule_acts_until_it_is_released(attended: Attended, tmp_path: Path):
    stopped = ask("halt", by="ada", why="smoke")["decision"]
    assert (stopped["status"], stopped["reason"]) == ("acknowledged", "emergency stop by ada: smoke")
    assert attended.beamline.done == ["stop"]
    assert ask("status")["halted"] == "emergency stop by ada: smoke"
    attended.measure(1.0, 2.0)
    wait_until(lambda: "rejected" in attended.statuses)
    assert attended.beamline.done == ["stop"]
    ask("release", by="ada")
    attended.measure(1.0, 2.0)
    wait_until(lambda: attended.beamline.done == ["stop", "pause"])
    assert '"outcome": "acknowledged"' in (tmp_path / "audit.jsonl").read_text()


def test_an_order_between_runs_belongs_to_no_run(attended: Attended):
    """Whoever reads the table takes any other text for the uid of a run."""
    parents: list[str] = []
    attended.agent.subscribe(lambda name, doc: parents.append(doc["parent_uid"]) if name == "start" else None)
    ask("stop", by="ada")
    wait_until(lambda: len(attended.agent.results.decisions()) == 1)
    assert attended.agent.results.decisions()["run_uid"].tolist() == [""]
    assert parents == [""]


def test_after_an_emergency_stop_a_person_cannot_resume_but_stop_until_it_is_released(attended: Attended):
    ask("halt", by="ada", why="smoke")
    said = run_command("resume", code=1).stderr
    assert "resume rejected: halted by an emergency stop by ada: smoke; xas-agent release first" in said
    for command in ("pause", "stop", "release", "resume"):
        run_command(command)
    assert attended.beamline.done == ["stop", "pause", "stop", "resume"]


def test_an_order_that_is_not_carried_out_is_an_error(tmp_path: Path):
    agent = XASAgent(Config(), [WhiteLine("Co")])
    server = OperatorServer(agent, dict, dict, None)
    server.start()
    try:
        for command in ("halt", "pause"):
            said = run_command(command, "--as", "ada", code=1).stderr
            assert "rejected: no control is connected" in said
    finally:
        server.close()
        agent.close()


def test_orders_need_no_rule_and_a_pause_is_shown(attended: Attended):
    assert ask("pause", by="ada")["decision"]["status"] == "acknowledged"
    assert ask("status")["paused"] == "by operator: requested by ada"
    ask("resume", by="ada")
    assert ask("status")["paused"] == ""
    assert attended.beamline.done == ["pause", "resume"]


def test_a_session_that_was_killed_is_not_asked(attended: Attended):
    with socket.socket(socket.AF_UNIX) as dead:  # closed without removing its file
        dead.bind(str(sockets_folder() / "1.sock"))
    assert ask("status")["session"]["pid"] == str(os.getpid())
    with pytest.raises(Refused, match="no session 1 runs"):
        ask("status", "1")


@pytest.fixture
def of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attended]:
    """A session of the same user with another process id."""
    with monkeypatch.context() as patched:
        patched.setattr("os.getpid", lambda: 4711)
        folder = tmp_path / "theirs"
        folder.mkdir()
        made = Attended(folder)
    yield made
    made.close()


@pytest.mark.slow
def test_each_answer_names_its_session(attended: Attended, tmp_path: Path):
    name = f"session {os.getpid()}: {tmp_path}"
    for command in ("pause", "resume", "stop", "halt", "release", "pending"):
        assert run_command(command).stdout.splitlines()[0] == name
    assert name in run_command("approve", code=2).stderr


@pytest.mark.slow
def test_one_of_several_sessions_is_named_by_process_id_or_folder(
    attended: Attended, of_another: Attended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said = run_command("halt", code=2).stderr
    assert "several sessions run; name one with --session PID or --session FOLDER:" in said
    assert f"session 4711: {tmp_path / 'theirs'}" in said
    for name in ("4711", str(tmp_path / "theirs"), "theirs"):
        monkeypatch.chdir(tmp_path)
        run_command("pause", "--session", name)
    assert (attended.beamline.done, of_another.beamline.done) == ([], ["pause"] * 3)
    monkeypatch.setenv("XAS_AGENT_SESSION", str(tmp_path))
    run_command("pause")
    assert attended.beamline.done == ["pause"]
    assert "no session nowhere runs here" in run_command("pause", "--session", "nowhere", code=2).stderr


@pytest.mark.slow
def test_when_the_own_session_has_ended_that_of_another_is_only_halted(attended: Attended, of_another: Attended):
    own = str(os.getpid())
    run_command("pending", "--session", own)
    attended.server.close()
    for command in ("approve", "reject", "pause", "resume", "stop", "release"):
        said = run_command(command, code=2).stderr
        assert f"this terminal last asked session {own}" in said
        assert "add --session 4711" in said
    assert of_another.beamline.done == []
    run_command("pause", "--session", "4711")  # which is from now on the one that is meant
    run_command("resume")
    run_command("pending")
    assert of_another.beamline.done == ["pause", "resume"]


def test_an_emergency_stop_is_not_refused_when_the_own_session_has_ended(attended: Attended, of_another: Attended):
    run_command("pending", "--session", os.getpid())
    attended.server.close()
    assert run_command("halt").stdout.startswith("session 4711: ")
    assert of_another.beamline.done == ["stop"]


def test_a_session_that_went_on_in_its_folder_is_still_the_own_one(
    attended: Attended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_command("pending")
    attended.server.close()
    with monkeypatch.context() as patched:
        patched.setattr("os.getpid", lambda: 4711)
        again = Attended(tmp_path)
    try:
        assert run_command("pause").stdout.startswith("session 4711: ")
    finally:
        again.close()


def test_malformed_commands_are_answered(attended: Attended):
    [path] = sockets_folder().glob("*.sock")
    for request in (b"\n", b"[]\n", b"{\n", b'{"command": "explode"}\n', b"\xff\xfe\n"):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(path))
            link.sendall(request)
            assert json.loads(link.makefile("rb").readline())["ok"] is False
    assert ask("status")["frames"] == 1


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path):
    (tmp_path / "xas-agent").mkdir(mode=0o755)
    with pytest.raises(Refused, match="others may enter it"):
        sockets_folder()


def keep_orders(path: Path, number: int = 3) -> None:
    """Keep orders, each by a process of its own."""
    for n in range(number):
        audit = Audit(path)
        audit.command("ada", "stop", {"n": n}, "done")
        audit.close()


def test_a_changed_audit_is_found(tmp_path: Path):
    path = tmp_path / "audit.jsonl"
    keep_orders(path)
    assert check_audit(path) == 3
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0].replace(b"ada", b"bob") + lines[1] + lines[2])
    with pytest.raises(InputError, match="line 2"):
        check_audit(path)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(InputError, match="line 2"):
        check_audit(path)


def test_an_audit_goes_on_after_a_line_was_torn(tmp_path: Path):
    path = tmp_path / "audit.jsonl"
    keep_orders(path)
    path.write_bytes(path.read_bytes()[:-40])
    keep_orders(path, 1)
    assert check_audit(path) == 3


def test_an_audit_that_is_removed_is_written_again_whole(tmp_path: Path):
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    for number in range(3):
        audit.command("ada", "stop", {"n": number}, "done")
        path.unlink()
    audit.close()
    assert check_audit(path) == 3


def test_a_session_is_found_from_a_shell_that_does_not_know_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    attended = Attended(tmp_path)
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "login"))
        assert ask("status")["session"]["pid"] == str(os.getpid())
    finally:
        attended.close()


def test_commands_without_a_session_say_so():
    assert "no session of this user runs here" in run_command("status", code=2).stderr


def decide_twice(attended: Attended) -> list[dict[str, Any]]:
    attended.measure(1.0, 2.0)
    attended.measure(1.0, 2.0)
    wait_until(lambda: ask("status")["pending"] == 2)
    return ask("pending")["pending"]


def test_without_an_id_the_only_decision_is_approved_and_named(attended: Attended):
    attended.measure(1.0, 2.0)
    wait_until(lambda: ask("status")["pending"] == 1)
    said = run_command("approve", "--as", "ada", code=0).stdout
    assert "stop by high" in said
    assert "above 1.5" in said
    wait_until(lambda: attended.beamline.done == ["stop"])


def test_without_an_id_none_of_several_is_approved(attended: Attended):
    waiting = decide_twice(attended)
    for command in ("approve", "reject"):
        said = run_command(command, code=2).stderr
        assert "2 decisions wait; name the one that you mean by its id:" in said
        assert all(d["short_id"] in said for d in waiting)
    assert attended.statuses == ["proposed", "proposed"]
    shown = run_command("pending", code=0).stdout
    typed = shown.splitlines()[1].split()[0]
    assert typed == waiting[0]["short_id"]
    assert len(typed) < len(waiting[0]["id"])
    run_command("approve", typed, code=0)
    wait_until(lambda: attended.beamline.done == ["stop"])
    assert [d["id"] for d in ask("pending")["pending"]] == [waiting[1]["id"]]


def test_without_an_id_a_decision_that_came_after_the_list_is_not_approved(attended: Attended):
    """The one that was shown is gone, and another one waits."""
    attended.measure(1.0, 2.0)
    [shown] = waiting()
    ask("reject", id=shown["id"])
    attended.measure(1.0, 2.0)
    wait_until(lambda: ask("status")["pending"] == 1)
    with pytest.raises(Refused, match="it came after you were told what waits"):
        ask("approve")
    assert attended.beamline.done == []
    ask("approve")  # now it was shown
    wait_until(lambda: attended.beamline.done == ["stop"])


def test_ids_are_as_short_as_they_can_be_told_apart():
    ids = {"abcdefgh", "abcdeggh", "xbcdefgh"}
    assert [short_id(id, ids) for id in sorted(ids)] == ["abcdef", "abcdeg", "xbcd"]


def test_a_name_cannot_write_over_what_a_person_reads(tmp_path: Path):
    agent = XASAgent(Config(), [WhiteLine("Co")])
    server = OperatorServer(agent, lambda: {"out": str(tmp_path), "sample": "LCO\x08\x08NMC"}, dict, None)
    server.start()
    try:
        shown = run_command("pending").stdout
    finally:
        server.close()
        agent.close()
    assert "sample LCO" in shown
    assert "\x08" not in shown
