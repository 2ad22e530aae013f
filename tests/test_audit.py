"""The audit of the pinned packages: it fails for a known vulnerability, and never for lack of a network."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("pip_audit", reason="the extra dev is not installed")
pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / ".ci" / "audit"


@contextmanager
def database(vulnerable: str) -> Iterator[str]:
    """A database in the form of OSV that knows a vulnerability of one package."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            flaw = {"id": "CVE-1", "summary": "", "affected": [], "aliases": []}
            body = json.dumps({"vulns": [flaw]} if asked["package"]["name"] == vulnerable else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run_audit(*options: str, python: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *python, str(SCRIPT), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def audited(url: str) -> tuple[int, str]:
    done = run_audit("--vulnerability-service", "osv", "--osv-url", url)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(("vulnerable", "code"), [("", 0), ("numpy", 1)])
def test_a_known_vulnerability_fails(vulnerable: str, code: int) -> None:
    with database(vulnerable) as url:
        found, said = audited(url)
    assert found == code, said
    assert f"packages audited, {code} vulnerabilities" in said
    assert ("numpy" in said and "CVE-1" in said) == bool(vulnerable)


def test_without_an_answer_the_audit_is_skipped() -> None:
    with database("") as url:
        pass
    code, said = audited(url)
    assert code == 0
    assert said.startswith("audit skipped: the database of vulnerabilities does not answer (")


def test_any_other_failure_fails() -> None:
    done = run_audit("--no-such-option")
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("audit failed: pip-audit ended with 2: ")
    assert "unrecognized arguments: --no-such-option" in done.stderr


def test_without_pip_audit_the_audit_fails_and_says_what_to_do() -> None:
    done = run_audit(python=("-I", "-S"))  # without installed packages
    assert done.returncode == 1, done.stdout
    assert done.stderr.endswith("has no pip-audit; run make audit, which installs it\n")
