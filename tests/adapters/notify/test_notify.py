"""Notifications to real servers and commands: what arrives, what is refused, and who waits for whom."""

import asyncio
import json
import shlex
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import UnthreadedController
from aiosmtpd.smtp import AuthResult, LoginPassword
from deadline import wait_until
from logs import capture_logs
from pydantic import ValidationError

from xas_agent.adapters.notify import Destination, Notifications
from xas_agent.agent.types.decision import Decision
from xas_agent.agent.types.errors import InputError
from xas_agent.agent.types.protocols import Reply
from xas_agent.agent.types.scan import Scan
from xas_agent.app.config import load_config

DECISION = Decision(
    "d1",
    "half charged",
    "notify",
    "OS 3.52 e",
    "run-1",
    1.7e9,
    0.93,
    (),
    scan=Scan("s", "LiCoO₂ cathode", 7, "a.xdi"),
)
MESSAGE = DECISION.as_message()


class Server:
    """An HTTP server that keeps what is posted, and answers what it is told to."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.got: list[tuple[str, str | None, Any]] = []
        self.answer, self.go = 204, threading.Event()
        self.go.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
                outer.go.wait(30)
                self.send_response(outer.answer)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                outer.got.append((self.path, None, None))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@contextmanager
def http(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(tls)
    try:
        yield server
    finally:
        server.go.set()
        server.http.shutdown()
        server.http.server_close()


class Mailbox:
    """What an SMTP server does with mail."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.refused: set[str] = set()
        self.answer = "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.mails.append(envelope)
        return self.answer


@contextmanager
def smtp(**options: Any) -> Iterator[tuple[Mailbox, int]]:
    mailbox = Mailbox()
    loop = asyncio.new_event_loop()
    # Unthreaded, since the threaded controller needs a port that is known before.
    controller = UnthreadedController(mailbox, hostname="127.0.0.1", port=0, loop=loop, **options)
    controller.begin()
    assert isinstance(controller.server, asyncio.Server)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield mailbox, controller.server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(close(controller), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def close(controller: UnthreadedController) -> None:
    """Close the server, and the connections that a client left open."""
    await controller.finalize()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def authority(tmp_path, monkeypatch) -> trustme.CA:
    """An authority whose certificates this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


def tls_of(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def webhook(port: int, scheme: str = "http", **keys: Any) -> dict[str, Any]:
    return {"webhook": f"{scheme}://localhost:{port}/hook", **keys}


def email(port: int, **keys: Any) -> dict[str, Any]:
    settings = {
        "host": "localhost",
        "port": port,
        "starttls": False,
        "from": "agent@lab",
        "to": ["me@lab", "you@lab"],
    }
    return {"email": settings | keys}


def python(code: str, **keys: Any) -> dict[str, Any]:
    return {"command": [sys.executable, "-c", code], **keys}


def tell(*destinations: dict[str, Any]) -> Reply:
    control = Notifications([Destination.model_validate(d) for d in destinations])
    return control.request(DECISION.id, "notify", MESSAGE, 5)


def test_every_destination_takes_the_same(tmp_path):
    keep = f"import sys; open({str(tmp_path / 'told')!r}, 'w').write(sys.stdin.read())"
    with http() as server, smtp() as (mailbox, port):
        reply = tell(webhook(server.port), email(port), python(keep))
    assert reply.status == "acknowledged"
    assert server.got == [("/hook", "application/json", MESSAGE)]
    assert json.loads((tmp_path / "told").read_text()) == MESSAGE
    (mail,) = mailbox.mails
    assert (mail.mail_from, mail.rcpt_tos) == ("agent@lab", ["me@lab", "you@lab"])


def test_a_notification_holds_what_was_decided():
    assert MESSAGE == {
        "id": "d1",
        "rule": "half charged",
        "reason": "OS 3.52 e",
        "confidence": 0.93,
        "time": 1.7e9,
        "run": "run-1",
        "sample": "LiCoO₂ cathode",
        "scan_id": 7,
        "file": "a.xdi",
        "args": {},
    }


def test_an_email_is_readable():
    import email as standard
    from email.policy import default

    with smtp() as (mailbox, port):
        assert tell(email(port)).status == "acknowledged"
    mail = standard.message_from_bytes(mailbox.mails[0].content, policy=default)
    assert mail["Subject"] == "xas-agent: half charged: LiCoO₂ cathode"
    assert mail["Message-ID"] == "<d1@xas-agent>"
    body = mail.get_body()
    assert body is not None
    text = body.get_content()
    for line in ("reason: OS 3.52 e", "confidence: 0.93", "time: 2023-11-14 22:13:20 UTC", "run: run-1"):
        assert line in text.splitlines()


def test_a_name_cannot_add_a_header():
    forged = {**MESSAGE, "sample": "a\r\nBcc: spy@elsewhere"}
    with smtp() as (mailbox, port):
        control = Notifications([Destination.model_validate(email(port))])
        assert control.request("d1", "notify", forged, 5).status == "acknowledged"
    assert mailbox.mails[0].rcpt_tos == ["me@lab", "you@lab"]


# ------------------------------------------------------------------ failures


@pytest.mark.parametrize("answer", [302, 404, 500])
def test_a_webhook_that_answers_otherwise_has_not_taken_it(answer):
    with http() as server:
        server.answer = answer
        reply = tell(webhook(server.port))
    assert reply.status == "rejected"
    assert reply.reason.startswith(f"webhook localhost: answered {answer} ")
    assert len(server.got) == 1  # a redirect is not followed


def test_nobody_there():
    with http() as server:
        port = server.port
    for destination in (webhook(port), email(port)):
        reply = tell(destination)
        assert reply.status == "rejected"
        assert "refused" in reply.reason


def test_a_webhook_that_does_not_answer_leaves_the_outcome_open():
    with http() as server:
        server.go.clear()
        assert tell(webhook(server.port, timeout_s=0.3)) == Reply(
            "expired", "webhook localhost: did not take it within 0.3 s"
        )


def test_a_destination_that_hangs_gets_no_more():
    with http() as server:
        server.go.clear()
        control = Notifications([Destination.model_validate(webhook(server.port, timeout_s=30.0))])
        first: list[Reply] = []
        asking = threading.Thread(target=lambda: first.append(control.request("a", "notify", MESSAGE, 5)))
        asking.start()
        wait_until(lambda: server.got)
        assert control.request("b", "notify", MESSAGE, 5) == Reply(
            "rejected", "webhook localhost: still busy with an earlier notification"
        )
        server.go.set()
        asking.join(30)
        assert first[0].status == "acknowledged"
        assert control.request("c", "notify", MESSAGE, 5).status == "acknowledged"
    assert len(server.got) == 2


def test_a_mail_server_that_refuses_says_why():
    with smtp() as (mailbox, port):
        mailbox.refused = {"you@lab"}
        assert tell(email(port)) == Reply("rejected", "email me@lab, you@lab: recipients refused: you@lab")
        mailbox.refused = {"me@lab", "you@lab"}
        assert tell(email(port)).reason.endswith("recipients refused: me@lab, you@lab")
        mailbox.refused, mailbox.answer = set(), "552 mailbox full"
        assert tell(email(port)) == Reply("rejected", "email me@lab, you@lab: answered 552 mailbox full")


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        ("import sys; sys.exit('no printer')", Reply("rejected", "exit code 1: no printer")),
        ("import time; time.sleep(60)", Reply("expired", "did not take it within 1 s")),
    ],
)
def test_a_command_that_fails_or_hangs(code, reply):
    found = tell(python(code, timeout_s=1.0))
    assert (found.status, found.reason) == (reply.status, f"command {sys.executable}: {reply.reason}")


def test_a_command_that_does_not_exist_or_does_not_read():
    assert tell({"command": ["/no/such/program"]}).reason == (
        "command /no/such/program: cannot be run: No such file or directory"
    )
    assert tell(python("pass")).status == "acknowledged"


def test_a_command_ends_with_what_it_started(tmp_path):
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    script = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    control = Notifications([Destination.model_validate(python(script, timeout_s=3.0))])
    assert control.request("a", "notify", MESSAGE, 5).status == "expired"
    wait_until(lambda: not Path(f"/proc/{pid.read_text()}").exists() or zombie(pid.read_text()))


def zombie(pid: str) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_arguments_of_a_command_go_through_no_shell(tmp_path):
    trace = tmp_path / "trace"
    tell({"command": [sys.executable, "-c", "pass", f"; touch {shlex.quote(str(trace))}"]})
    assert not trace.exists()


def test_one_failure_leaves_the_others_alone_and_is_logged():
    with http() as server, capture_logs() as lines:
        reply = tell({"command": ["/no/such/program"]}, webhook(server.port), python("raise SystemExit(3)"))
    assert len(server.got) == 1
    assert reply.status == "rejected"
    assert reply.reason.count(";") == 1
    failed = [line["destination"] for line in lines if line["event"] == "notification failed"]
    assert failed == ["command /no/such/program", f"command {sys.executable}"]


def test_failures_of_destinations_with_one_name_are_all_told():
    hangs, fails = python("import time; time.sleep(60)", timeout_s=1.0), python("raise SystemExit(3)")
    reply = tell(hangs, fails)
    assert reply.status == "expired"
    name = f"command {sys.executable}"
    assert reply.reason == f"{name}: did not take it within 1 s; {name}: exit code 3: "


def test_the_path_of_a_webhook_is_not_told():
    with http() as server, capture_logs() as lines:
        server.answer = 403
        reply = tell({"webhook": f"http://localhost:{server.port}/T0KEN"})
    assert "T0KEN" not in reply.reason + str(lines)


# ------------------------------------------------------------------ encryption


def test_https_and_its_certificate(authority):
    with http(tls_of(authority)) as server:
        assert tell(webhook(server.port, "https")).status == "acknowledged"
    with http(tls_of(authority, "another.host")) as server:
        reply = tell(webhook(server.port, "https"))
    assert reply.status == "rejected"
    assert "certificate" in reply.reason
    assert server.got == []


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, login: Any) -> AuthResult:
    known = isinstance(login, LoginPassword) and (login.login, login.password) == (b"agent", b"pass word")
    return AuthResult(success=known, handled=False)


def test_email_over_starttls_with_a_password(authority, monkeypatch):
    keys = {"starttls": True, "user": "agent", "password_env": "MAIL_PASSWORD"}
    options = {"tls_context": tls_of(authority), "authenticator": authenticate, "auth_required": True}
    with smtp(**options) as (mailbox, port):
        monkeypatch.setenv("MAIL_PASSWORD", "pass word")
        assert tell(email(port, **keys)).status == "acknowledged"
        monkeypatch.setenv("MAIL_PASSWORD", "wrong pass")
        with capture_logs() as lines:
            reply = tell(email(port, **keys))
    assert len(mailbox.mails) == 1
    assert reply.status == "rejected"
    assert "answered 535" in reply.reason
    assert "wrong pass" not in reply.reason + str(lines)


def test_email_to_a_server_that_is_another(authority):
    with smtp(tls_context=tls_of(authority, "another.host")) as (mailbox, port):
        reply = tell(email(port, starttls=True))
    assert reply.status == "rejected"
    assert "certificate" in reply.reason
    assert mailbox.mails == []


def test_email_without_starttls_at_the_server_is_refused():
    with smtp() as (mailbox, port):
        reply = tell(email(port, starttls=True))
    assert reply.status == "rejected"
    assert "STARTTLS" in reply.reason
    assert mailbox.mails == []


def test_a_password_must_be_there(monkeypatch):
    monkeypatch.delenv("MAIL_PASSWORD", raising=False)
    with pytest.raises(InputError, match="the variable MAIL_PASSWORD is not set"):
        tell(email(25, user="agent", password_env="MAIL_PASSWORD"))


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("destination", "why"),
    [
        ({}, "one of webhook, email and command"),
        ({"webhook": "https://a.b/", "command": ["a"]}, "one of webhook, email and command"),
        ({"webhook": "http://a.b/"}, "https to a.b, which is another machine, or insecure: true"),
        ({"webhook": "file:///etc/passwd"}, "a URL without user and password"),
        ({"webhook": "https://me:pw@a.b/"}, "a URL without user and password"),
        ({"webhook": "https://a.b:port/"}, "a URL, https://HOST/PATH"),
        ({"command": []}, "at least 1"),
        ({"command": "beep"}, "valid tuple"),
        ({"email": {"host": "a.b", "from": "a", "to": ["b"], "starttls": False}}, "starttls to a.b"),
        ({"email": {"host": "a.b", "from": "a", "to": []}}, "at least 1"),
        ({"email": {"host": "a.b", "from": "a", "to": ["b"], "user": "c"}}, "user and password_env, or neither"),
        ({"email": {"host": "a.b", "from": "a", "to": ["b"], "password": "c"}}, "not permitted"),
    ],
)
def test_a_destination_that_is_none_is_refused(destination, why):
    with pytest.raises(ValidationError, match=why):
        Destination.model_validate(destination)


@pytest.mark.parametrize(
    "destination",
    [
        {"webhook": "https://a.b/c?d=e"},
        {"webhook": "http://127.0.0.1:8080/"},
        {"webhook": "http://[::1]/"},
        {"webhook": "http://a.b/", "insecure": True},
        {"email": {"host": "a.b", "from": "a", "to": ["b"]}},
        {"email": {"host": "a.b", "from": "a", "to": ["b"], "starttls": False}, "insecure": True},
        {"command": ["notify-send", "xas-agent"]},
    ],
)
def test_settings_survive_being_written_and_read(destination):
    config = load_config({"notify": [destination]})
    assert load_config(config.model_dump(exclude_unset=True)) == config
