"""Who may read and act on a dashboard."""

import stat
from pathlib import Path

import pytest
from full_disk import full_disk

from xas_agent.agent.types import InputError
from xas_agent.app.view.access import TOKEN_FILE, Access, token_of

TOKEN = "correct-horse-battery"
LOCAL, WIDE = Access("127.0.0.1", TOKEN), Access("0.0.0.0", TOKEN)
BEARER = {"authorization": f"Bearer {TOKEN}"}


def status(access: Access, method: str = "GET", path: str = "/api/sessions", **headers: str) -> int:
    given = {"host": "127.0.0.1:8642", **{name.replace("_", "-"): value for name, value in headers.items()}}
    refusal = access.refusal(method, path, given)
    return 200 if refusal is None else refusal[0]


@pytest.mark.parametrize(
    ("host", "local", "wide"),
    [
        ("127.0.0.1:8642", 200, 200),
        ("localhost:9000", 200, 200),
        ("[::1]:8642", 200, 200),
        ("192.0.2.7:8642", 421, 200),
        ("rebound.example", 421, 421),
        ("127.0.0.1.rebound.example:8642", 421, 421),
        ("", 421, 421),
        ("[", 421, 421),
    ],
)
def test_only_the_names_of_the_server_are_answered(host: str, local: int, wide: int):
    assert status(LOCAL, host=host) == local
    assert status(WIDE, host=host, **BEARER) == wide


def test_reading_on_this_machine_needs_no_token_and_acting_does():
    assert status(LOCAL) == 200
    assert status(LOCAL, "POST") == 401
    assert status(LOCAL, "POST", **BEARER) == 200
    assert status(LOCAL, "POST", authorization="Bearer wrong") == 401
    assert status(LOCAL, "POST", authorization=f"Basic {TOKEN}") == 401


def test_on_a_wider_address_everything_but_the_page_that_asks_for_it_needs_the_token():
    for path in ("/", "/api/health", "/api/sessions", "/static/app.js", "/api/openapi.json"):
        assert status(WIDE, path=path) == 401
        assert status(WIDE, path=path, **BEARER) == 200
        assert status(WIDE, path=path, cookie=f"other=1; xas_agent_dashboard={TOKEN}") == 200
        assert status(WIDE, path=path, cookie="xas_agent_dashboard=wrong") == 401
    assert status(WIDE, path="/token") == status(WIDE, path="/static/token.css") == 200


def test_a_page_of_another_site_cannot_act():
    cookie = {"cookie": f"xas_agent_dashboard={TOKEN}"}
    assert status(LOCAL, "POST", origin="http://127.0.0.1:8642", **cookie) == 200
    for origin in ("http://evil.example", "null", "http://[", "http://127.0.0.1:1", "file://127.0.0.1:8642"):
        assert status(LOCAL, "POST", origin=origin, **cookie) == 403
        assert status(LOCAL, "POST", origin=origin, **BEARER) == 403
    assert status(LOCAL, "POST", **cookie) == 403, "a browser always says where it comes from"
    assert status(LOCAL, "POST", sec_fetch_site="same-origin", **cookie) == 200
    assert status(LOCAL, "POST", sec_fetch_site="cross-site", **cookie) == 403


def test_the_token_is_kept_for_the_next_start(tmp_path: Path):
    token = token_of(None, tmp_path)
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600
    assert token_of(None, tmp_path) == token != token_of(None, make(tmp_path / "other"))
    assert len(token) >= 32


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_token_file_must_be_secret_and_long_enough(tmp_path: Path):
    file = tmp_path / "token"
    with pytest.raises(InputError, match="no such file"):
        token_of(file, tmp_path)
    file.write_text("a-long-enough-token\n")
    file.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        token_of(file, tmp_path)
    file.chmod(0o600)
    assert token_of(file, tmp_path) == "a-long-enough-token"
    file.write_text("short")
    with pytest.raises(InputError, match="at least 16"):
        token_of(file, tmp_path)


def test_a_full_disk_leaves_no_file_that_the_next_start_refuses(tmp_path: Path):
    with full_disk(0):
        assert token_of(None, tmp_path)
    assert token_of(None, tmp_path) == token_of(None, tmp_path)


def test_two_dashboards_that_begin_at_once_share_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def other_is_faster(_: int) -> str:
        monkeypatch.undo()
        token_of(None, tmp_path)
        return "x" * 32

    monkeypatch.setattr("secrets.token_urlsafe", other_is_faster)
    assert token_of(None, tmp_path) == (tmp_path / TOKEN_FILE).read_text().strip() != "x" * 32
