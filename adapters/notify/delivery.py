"""Delivers notifications; each function returns once its destination has accepted the notification."""

import os
import signal
import smtplib
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import formatdate
from tempfile import TemporaryFile
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from ..._version import __version__
from ..codecs import to_json
from .settings import Destination, EmailSettings


class Refused(Exception):  # noqa: N818  named after the event
    """A destination refused a notification."""


def deliver(destination: Destination, message: Mapping[str, Any], password: str | None) -> None:
    """Send a notification, and return once the destination has accepted it.

    Raises
    ------
    Refused
        The destination has certainly not accepted it.
    Exception
        It is unknown whether the destination has accepted it.
    """
    if destination.email is not None:
        _send_email(destination.email, message, password, destination.timeout_s)
    elif destination.command is not None:
        _run_command(destination.command, message, destination.timeout_s)
    else:
        _post(destination, message)


class _NoRedirects(HTTPRedirectHandler):
    """Refuses redirects, which would repeat the request as a GET without the notification, perhaps unencrypted."""

    def redirect_request(self, req: object, fp: object, code: int, msg: str, headers: object, newurl: str) -> None:
        return None


def _post(destination: Destination, message: Mapping[str, Any]) -> None:
    assert destination.webhook is not None
    handlers = [_NoRedirects(), *([ProxyHandler({})] if destination.local else [])]
    headers = {"Content-Type": "application/json", "User-Agent": f"xas-agent/{__version__}"}
    request = Request(destination.webhook, to_json(message).encode(), headers, method="POST")
    try:
        with build_opener(*handlers).open(request, timeout=destination.timeout_s):
            pass
    except HTTPError as error:
        with error:
            raise Refused(f"answered {error.code} {error.reason}") from None
    except URLError as error:  # raised before the request was sent
        raise Refused(f"cannot be reached: {error.reason}") from None


def _send_email(settings: EmailSettings, message: Mapping[str, Any], password: str | None, timeout_s: float) -> None:
    with ExitStack() as stack:
        try:
            smtp = smtplib.SMTP(settings.host, settings.port, timeout=timeout_s)
            stack.callback(smtp.close)
            if settings.starttls:
                smtp.starttls(context=ssl.create_default_context())
            if settings.user is not None:
                smtp.login(settings.user, password or "")
        except OSError as error:  # includes the errors of smtplib and ssl
            raise Refused(_said(error)) from None
        try:
            refused = smtp.send_message(_email(settings, message))
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except (smtplib.SMTPResponseException, smtplib.SMTPNotSupportedError) as error:
            raise Refused(_said(error)) from None
        if refused:
            raise Refused(f"recipients refused: {', '.join(refused)}")
        with suppress(OSError):  # the email is already accepted
            smtp.quit()


def _said(error: OSError) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        answer = error.smtp_error
        return (
            f"answered {error.smtp_code} {answer.decode(errors='replace') if isinstance(answer, bytes) else answer}"
        )
    return str(error) or type(error).__name__


def _email(settings: EmailSettings, message: Mapping[str, Any]) -> EmailMessage:
    email = EmailMessage()
    subject = f"xas-agent: {message['rule']}: {message['sample'] or 'run ' + message['run']}"
    email["Subject"] = " ".join(subject.split())  # a header has one line
    email["From"], email["To"] = settings.sender, ", ".join(settings.to)
    email["Date"] = formatdate(usegmt=True)
    email["Message-ID"] = f"<{message['id']}@xas-agent>"  # equal if it is sent again after a restart
    shown = {**message, "time": f"{datetime.fromtimestamp(message['time'], UTC):%Y-%m-%d %H:%M:%S} UTC"}
    email.set_content("\n".join(f"{key}: {value}" for key, value in shown.items() if value not in ("", {}, 0)))
    return email


def _run_command(command: Sequence[str], message: Mapping[str, Any], timeout_s: float) -> None:
    # A file, since a pipe would stay open as long as a child of the command runs.
    with TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
            )
        except OSError as error:
            raise Refused(f"cannot be run: {error.strerror}") from None
        try:
            process.communicate(to_json(message).encode() + b"\n", timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            if process.poll() is None:
                _kill(process)
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    if process.returncode:
        raise Refused(f"exit code {process.returncode}: {last[:200]}")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a command and the processes that it started."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
