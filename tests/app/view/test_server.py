"""A dashboard in a process of its own, and what its browsers and programs get."""

import csv
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pandas as pd
import pytest
from deadline import wait_until
from forked import run_command
from shown_session import PROBABILITIES, Shown, Written, settled, shown, written

from xas_agent.app.view.access import CSP

OTHER_SITE = "http://evil.example"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    written(out / "night1", frames=5)
    written(out / "night2", frames=2, sample="Ni O: 2")
    return out


@pytest.fixture(scope="module")
def local(folders: Path) -> Iterator[Shown]:
    with shown(folders, "--port", 0) as dashboard:
        yield dashboard


@pytest.fixture(scope="module")
def wide(folders: Path) -> Iterator[Shown]:
    with shown(folders / "night1", "--bind", "0.0.0.0:0") as dashboard:
        yield dashboard


def test_a_folder_of_sessions_shows_all_of_them(local: Shown):
    second, first = local.json("/api/sessions")
    assert (first["id"], first["title"], first["frames"], first["elements"]) == ("night1", "LiCoO2", 5, ["Co"])
    assert (second["id"], second["samples"], second["live"]) == ("night2", ["Ni O: 2"], False)
    assert first["ended"] >= first["started"]


def test_a_session_and_its_parts(local: Shown):
    about = local.json("/api/sessions/night1")
    assert about["models"] == [{"name": "co-k", "sha256": "a" * 64}]
    assert about["descriptors"] == [{"name": "OS", "unit": "e", "classes": ["2", "3", "4"]}]
    assert "descriptors.csv" in about["files"]
    assert ".dashboard-token" not in about["files"]
    assert [sample["frames"] for sample in local.json("/api/sessions/night1/samples")] == [5]
    [decision] = local.json("/api/sessions/night1/decisions")
    assert (decision["status"], decision["can_approve"]) == ("acknowledged", False)
    assert local.json("/api/sessions/night1/quality")["set_aside"] == {"too few points": 1}
    state = local.json("/api/sessions/night1/state")
    assert (state["live"], state["message"]) == (False, "the session has ended")


def test_frames_from_a_number_on(local: Shown):
    rows = local.json("/api/sessions/night1/frames?after=3")
    assert [row["n"] for row in rows] == [4, 5]
    assert rows[0]["probabilities"] == {"OS": PROBABILITIES}
    assert rows[0]["ood_score"] is None, "NaN is no JSON"
    assert [row["n"] for row in local.json("/api/sessions/night1/frames?after=1&limit=2&series=cell")] == [2, 3]
    assert local.json("/api/sessions/night1/frames?series=other") == []


def test_csv_and_parquet_are_the_table_of_the_session(local: Shown, folders: Path):
    expected = pd.read_csv(folders / "night1" / "descriptors.csv")
    rows = pd.DataFrame(local.json("/api/sessions/night1/frames"))
    _, headers, body = local.ask("/api/sessions/night1/frames?format=csv")
    assert headers["content-disposition"] == 'attachment; filename="night1.csv"'
    of_csv = pd.read_csv(io.BytesIO(body))
    of_parquet = pd.read_parquet(io.BytesIO(local.ask("/api/sessions/night1/frames?format=parquet")[2]))
    for table in (of_csv, of_parquet, rows):
        assert list(table.columns[: len(expected.columns)]) == list(expected.columns)
        pd.testing.assert_frame_equal(
            table[expected.columns].replace("", float("nan")).astype(expected.dtypes), expected, check_dtype=False
        )
        assert table["uid"].tolist() == ["f1", "f2", "f3", "f4", "f5"]
        assert table["n"].tolist() == [1, 2, 3, 4, 5]


def test_a_csv_has_no_formula_of_a_sample(tmp_path: Path):
    written(tmp_path / "night1", frames=1, sample="=HYPERLINK(1)")
    with shown(tmp_path / "night1", "--bind", "127.0.0.1:0") as dashboard:
        [row] = csv.DictReader(io.StringIO(dashboard.ask("/api/sessions/night1/frames?format=csv")[2].decode()))
        assert row["sample"] == "'=HYPERLINK(1)"
        [frame] = dashboard.json("/api/sessions/night1/frames")
        assert frame["sample"] == "=HYPERLINK(1)"


def test_spectra(local: Shown):
    spectra = local.json("/api/sessions/night1/spectra?last=3")
    assert [row["uid"] for row in spectra["rows"]] == ["f1", "f3", "f5"]
    spectrum = local.json("/api/sessions/night1/spectra/f2")
    assert len(spectrum["measured"]["pre_edge"]) == len(spectrum["measured"]["energy_ev"]) == 40
    assert local.ask("/api/sessions/night1/spectra/none")[0] == 404
    assert local.ask("/api/sessions/none/spectra")[0] == 404


def test_every_answer_is_described_in_openapi(local: Shown):
    described = local.json("/api/openapi.json")
    for path, methods in described["paths"].items():
        for about in methods.values():
            assert about["description"], path
            content = about["responses"]["200"]["content"]
            assert path.endswith("/events") or content["application/json"]["schema"], path
    schemas = described["components"]["schemas"]
    for path, name in (("/api/sessions/night1", "SessionAbout"), ("/api/sessions/night1/state", "State")):
        assert set(schemas[name]["required"]) <= set(local.json(path))


def test_headers_of_every_answer(local: Shown):
    for path in ("/", "/token", "/static/token.css", "/api/sessions", "/nothing"):
        _, headers, _ = local.ask(path)
        assert headers["content-security-policy"] == CSP
        assert headers["x-content-type-options"] == "nosniff"
    assert local.ask("/api/sessions")[1]["cache-control"] == "no-store"
    assert local.ask("/static/../access.py")[0] == local.ask("/static/..%2Faccess.py")[0] == 404


def test_another_name_for_the_address_is_refused(local: Shown):
    status, _, body = local.ask("/api/sessions", Host="rebound.example")
    assert status == 421
    assert b"rebound.example" in body


def test_an_order_needs_the_token_and_a_page_of_this_server(local: Shown):
    path, order = "/api/sessions/night1/orders", {"command": "stop"}
    bearer = {"Authorization": f"Bearer {local.token}"}
    assert local.ask(path, "POST", order)[0] == 401
    assert local.ask(path, "POST", order, Origin=OTHER_SITE, **bearer)[0] == 403
    assert local.ask(path, "POST", {"command": "shutdown"}, **bearer)[0] == 422
    assert local.order("night1", command="stop") == (409, {"ok": False, "error": "no session runs in this folder"})
    assert local.order("night1", command="approve")[0] == 422


def test_the_printed_address_leaves_a_cookie(local: Shown):
    status, headers, _ = local.ask(f"/?token={local.token}")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    origin = f"http://127.0.0.1:{local.port}"
    answer = local.ask(
        "/api/sessions/night1/orders", "POST", {"command": "stop"}, Cookie=cookie.partition(";")[0], Origin=origin
    )
    assert answer[0] == 409, "the order came as far as the session, which has ended"


def test_an_order_for_another_folder_of_this_name_is_refused(local: Shown, folders: Path):
    """As of a page that was open when the dashboard of another session began at its address."""
    status, answer = local.order("night1", command="halt", folder="/elsewhere/night1")
    assert (status, "the order is for /elsewhere/night1" in answer["error"]) == (409, True)
    status, answer = local.order("night1", command="halt", folder=str((folders / "night1").resolve()))
    assert (status, answer["error"]) == (409, "no session runs in this folder")


def test_a_wider_address_shows_nothing_without_the_token(wide: Shown):
    for path in (
        "/api/sessions",
        "/api/health",
        "/api/openapi.json",
        "/api/sessions/night1/events",
        "/static/app.js",
    ):
        assert wide.ask(path)[0] == 401
        assert wide.ask(path, Authorization="Bearer wrong")[0] == 401
    status, _, page = wide.ask("/")
    assert status == 401
    assert b'<form method="post" action="/token">' in page
    assert b"night1" not in page
    assert wide.json("/api/sessions", Authorization=f"Bearer {wide.token}")[0]["id"] == "night1"


def test_the_page_that_asks_for_the_token_takes_it(wide: Shown):
    form, kind = "/token", "application/x-www-form-urlencoded"
    origin = f"http://127.0.0.1:{wide.port}"
    wrong = wide.ask(form, "POST", urlencode({"token": "guess"}), **{"Content-Type": kind}, Origin=origin)
    assert wrong[0] == 401
    assert b"not the token" in wrong[2]
    right = wide.ask(form, "POST", urlencode({"token": wide.token}), **{"Content-Type": kind}, Origin=origin)
    assert right[0] == 303
    cookie = right[1]["set-cookie"].partition(";")[0]
    assert wide.json("/api/sessions", Cookie=cookie)


def test_events_of_a_session_that_is_written_and_a_client_that_comes_again(tmp_path: Path):
    session = Written(tmp_path / "s")
    session.frame()
    with shown(tmp_path / "s", "--port", 0) as dashboard:
        settled(dashboard, "s", 1)
        with dashboard.events("s") as events:
            assert next(events)[1] == "hello"
            session.frame()
            number, row = next((number, data) for number, name, data in events if name == "frame")
            assert (row["n"], row["uid"], row["probabilities"]) == (2, "f2", {"OS": PROBABILITIES})
        session.frame()
        session.decide("proposed")
        settled(dashboard, "s", 3)
        with dashboard.events("s", Last_Event_ID=str(number)) as events:
            missed = [next(events) for _ in range(2)]
            missed = [(name, data) for _, name, data in missed if name != "state"]
        assert missed[0][0] == "frame"
        assert missed[0][1]["n"] == 3
        with dashboard.events("s", Last_Event_ID="7") as events:
            assert next(events)[1] == "reset"
        session.end()


def test_a_signal_ends_the_server_although_somebody_watches(tmp_path: Path):
    with shown(written(tmp_path / "s"), "--port", 0) as dashboard, dashboard.events("s") as events:
        next(events)
        dashboard.process.terminate()
        wait_until(lambda: dashboard.process.poll() is not None, 10)
        assert dashboard.process.returncode in (0, -15)


def test_the_token_survives_a_restart(tmp_path: Path):
    folder = written(tmp_path / "s")
    with shown(folder, "--port", 0) as first:
        token = first.token
    with shown(folder, "--port", 0) as again:
        assert again.token == token
        assert json.loads(again.ask("/api/health")[2])["ok"] is True


def test_folders_that_do_not_exist_and_addresses_that_are_none(tmp_path: Path):
    assert "no such folder" in run_command("view", tmp_path / "none", code=2).stderr
    assert "expected HOST:PORT" in run_command("view", tmp_path, "--bind", "here:there", code=2).stderr
    assert "--bind and --host" in run_command("view", tmp_path, "--bind", "a:1", "--port", 2, code=2).stderr
    assert "cannot be bound" in run_command("view", tmp_path, "--host", "192.0.2.1", "--port", 1, code=3).stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_command("view", tmp_path, "--port", taken.getsockname()[1], code=3)
        assert "Address already in use; name another port, or none for the next free one" in done.stderr


def test_what_anybody_may_send_is_not_kept_in_memory(wide: Shown):
    status, _, body = wide.ask("/token", "POST", "token=" + "x" * 5_000_000, Content_Type="text/plain")
    assert status in (400, 413), body


def test_the_number_of_an_event_that_no_server_sent_begins_anew(local: Shown):
    with local.events("night1", Last_Event_ID="9" * 5000) as events:
        assert next(events)[1] == "hello"
