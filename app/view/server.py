"""The web server of the dashboard: its page and its API."""

import asyncio
import contextlib
import csv
import functools
import getpass
import hashlib
import html
import io
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel, Field, model_validator
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware

from ..._version import __version__
from ...agent.types import plain_message
from ..ask import Refused
from ..output.cells import cell
from .access import Access, Guard
from .schema import (
    Decision,
    Done,
    Frame,
    Health,
    Quality,
    Sample,
    SessionAbout,
    SessionListed,
    Spectra,
    Spectrum,
    State,
)
from .sessions import Sessions, Shown
from .stream import encode

_COOKIE_S = 30 * 86_400
"""Time that a browser stores the token, s."""
_MOST_SPECTRA = 2000
_LONGEST_FORM = 4096
"""Largest size of a form with a token, bytes."""
_LONGEST_NUMBER = 18
"""Largest number of digits in the number of an event; a client that sends more starts anew."""
_ORDER_S = 20.0
"""Longest wait for the outcome of an order, s."""
_STATIC = Path(__file__).with_name("static")
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

Command = Literal["approve", "reject", "pause", "resume", "stop", "halt", "release"]


class Order(BaseModel):
    """An order of a person."""

    command: Command
    id: str = ""
    """Id of the decision, for ``approve`` and ``reject``."""
    why: str = Field(default="", max_length=1000)
    """Reason, for the audit."""
    by: str = Field(default="", max_length=100)
    """Name of the person, for the audit; by default the user that runs the dashboard."""

    folder: str = ""
    """Folder of the intended session, as in ``/api/sessions``; the order is refused for any other."""

    @model_validator(mode="after")
    def _names_its_decision(self) -> Self:
        if self.command in ("approve", "reject") and not self.id:
            raise ValueError(f"{self.command} needs the id of a decision")
        return self


def create_app(sessions: Sessions, access: Access) -> FastAPI:
    """Return the ASGI application.

    Parameters
    ----------
    sessions : Sessions
        What is shown; it is started and closed with the application.
    access : Access
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sessions.start(asyncio.get_running_loop())
        asking = asyncio.create_task(sessions.ask_while_watched())
        try:
            yield
        finally:
            asking.cancel()
            sessions.close()

    app = FastAPI(
        title="xas-agent",
        version=__version__,
        description="What sessions of the agent measured, estimated and decided, and the orders of a person.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        middleware=[Middleware(Guard, access=access, refused=_refused)],
    )
    app.add_exception_handler(StarletteHTTPException, _not_found)
    app.add_exception_handler(RequestValidationError, _invalid)
    _add_pages(app, access)
    _add_sessions(app, sessions, access)
    _add_data(app, sessions)
    _add_tables(app, sessions)
    _add_orders(app, sessions)
    return app


def _add_pages(app: FastAPI, access: Access) -> None:
    @app.get("/", include_in_schema=False)
    def page(token: str | None = None) -> Response:
        if token is not None:
            return _signed_in(access, token)
        return HTMLResponse(_page())

    @app.get("/token", include_in_schema=False)
    def ask_token() -> Response:
        return HTMLResponse(_token_page(""))

    @app.post("/token", include_in_schema=False)
    async def take_token(request: Request) -> Response:
        body = b""
        async for part in request.stream():  # anybody may send it, at any length
            body += part
            if len(body) > _LONGEST_FORM:
                return HTMLResponse(_token_page("That is too long to be the token."), 413)
        return _signed_in(access, parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0])

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        return _file(name, "no-cache")

    @app.get("/static/{mark}/{name}", include_in_schema=False)
    def marked(mark: str, name: str) -> Response:
        return _file(name, "public, max-age=31536000, immutable" if mark == _mark() else "no-cache")


def _add_sessions(app: FastAPI, sessions: Sessions, access: Access) -> None:
    @app.get("/api/health", response_model=Health, tags=["sessions"])
    def health(request: Request) -> Response:
        """Confirm that the dashboard answers, and whether the requester has the token."""
        may_act = access.has_token(dict(request.headers))
        return _json({"ok": True, "version": __version__, "sessions": len(sessions.all()), "may_act": may_act})

    @app.get("/api/sessions", response_model=list[SessionListed], tags=["sessions"])
    def all_sessions() -> Response:
        """List the sessions."""
        return _json([_listed(sessions, shown) for shown in sessions.all()])

    @app.get("/api/sessions/{session}", response_model=SessionAbout, tags=["sessions"])
    def about_session(session: str) -> Response:
        """Describe a session: its models, versions, config, descriptors, rules and files."""
        shown = _shown(sessions, session)
        history, about = shown.history, shown.history.about()
        return _json(
            {
                **_listed(sessions, shown),
                "models": [{"name": name, "sha256": sha256} for name, sha256 in history.models.items()],
                "versions": history.versions,
                "config": about.get("config", {}),
                "source": about.get("source", ""),
                "descriptors": list(history.descriptors.values()),
                "rules": about.get("rules", []),
                "files": _files(shown.folder),
            }
        )

    @app.get("/api/sessions/{session}/state", response_model=State, tags=["sessions"])
    def state(session: str) -> Response:
        """Return the present state of a session: queue, pauses, sources, sinks and judgements of the rules."""
        return _json(sessions.state(_shown(sessions, session)))

    stream: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
    }

    @app.get("/api/sessions/{session}/events", tags=["sessions"], response_class=StreamingResponse, responses=stream)
    async def events(request: Request, session: str) -> StreamingResponse:
        """Send server-sent events as they occur: ``frame``, ``decision``, ``quality``, ``state``, ``reset``."""
        shown = await asyncio.to_thread(_shown, sessions, session)
        last = request.headers.get("last-event-id", request.query_params.get("last_event_id", ""))
        after = int(last) if last.isascii() and last.isdigit() and len(last) <= _LONGEST_NUMBER else None
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(shown.stream.client(after), media_type="text/event-stream", headers=headers)


def _add_data(app: FastAPI, sessions: Sessions) -> None:
    @app.get("/api/sessions/{session}/samples", response_model=list[Sample], tags=["frames"])
    def samples(session: str) -> Response:
        """List the series of a session: one for each sample and absorber."""
        return _json(_shown(sessions, session).history.samples())

    @app.get("/api/sessions/{session}/spectra", response_model=Spectra, tags=["spectra"])
    def spectra(
        session: str,
        last: Annotated[int, Query(ge=1, le=_MOST_SPECTRA)] = 200,
        series: str | None = None,
    ) -> Response:
        """Return aligned spectra, thinned evenly over the series and including the newest."""
        return _json(_shown(sessions, session).history.spectra(last, series))

    @app.get("/api/sessions/{session}/spectra/{uid}", response_model=Spectrum, tags=["spectra"])
    def spectrum(session: str, uid: str) -> Response:
        """Return the spectrum of one frame: aligned, as measured with its lines, and the first of its series."""
        try:
            return _json(_shown(sessions, session).history.spectrum(uid))
        except KeyError:
            raise HTTPException(404, f"no frame {uid}") from None

    @app.get("/api/sessions/{session}/decisions", response_model=list[Decision], tags=["decisions"])
    def decisions(session: str) -> Response:
        """List the decisions with their evidence and history, the newest first."""
        shown = _shown(sessions, session)
        waiting = set(sessions.state(shown)["pending"])
        quantities = {rule["name"]: rule.get("quantity", "") for rule in shown.history.about().get("rules", [])}
        with shown.history.lock:
            found = list(shown.history.decisions.values())[::-1]
        return _json([_decision(decision, waiting, quantities) for decision in found])

    @app.get("/api/sessions/{session}/quality", response_model=Quality, tags=["quality"])
    def quality(session: str) -> Response:
        """Count the frames set aside, the gaps and the flags by reason, with the latest notes."""
        return _json(_shown(sessions, session).history.quality())


def _add_tables(app: FastAPI, sessions: Sessions) -> None:
    @app.get("/api/sessions/{session}/frames", response_model=list[Frame], tags=["frames"])
    def frames(
        session: str,
        after: Annotated[int, Query(ge=0, description="Only frames with a higher `n`.")] = 0,
        limit: Annotated[int | None, Query(ge=1, description="Largest number of frames, the earliest first.")] = None,
        series: str | None = None,
        format: Literal["json", "csv", "parquet"] = "json",
    ) -> Response:
        """Return the frames: the columns of descriptors.csv, then number, series and uid."""
        shown = _shown(sessions, session)
        history = shown.history
        numbers = history.select(after, limit, series)
        if format == "json":
            return _json(history.rows(numbers))
        table = history.table(numbers)
        name = f'attachment; filename="{shown.id}.{format}"'
        if format == "csv":
            lines = _csv(table)
            return StreamingResponse(lines, media_type="text/csv", headers={"Content-Disposition": name})
        return Response(
            _parquet(table), media_type="application/vnd.apache.parquet", headers={"Content-Disposition": name}
        )


def _add_orders(app: FastAPI, sessions: Sessions) -> None:
    @app.post("/api/sessions/{session}/orders", response_model=Done, tags=["orders"])
    def order(session: str, order: Order) -> Response:
        """Give an order to a running session. It needs the token."""
        shown = _shown(sessions, session)
        if order.folder and order.folder != (folder := str(shown.folder.resolve())):
            meant = f"{session} is {folder} here, and the order is for {order.folder}: load the page again"
            return _json({"ok": False, "error": meant}, 409)
        running = sessions.links.of(shown.folder)
        if running is None:
            return _json({"ok": False, "error": "no session runs in this folder"}, 409)
        arguments = {name: value for name in ("id", "why") if (value := getattr(order, name))}
        try:
            answer = running.ask(order.command, order.by or getpass.getuser(), _ORDER_S, **arguments)
        except Refused as error:
            return _json({"ok": False, "error": str(error)}, 504)
        answer.pop("session", None)
        return _json(answer, 200 if answer.get("ok") else 409)


def _files(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    except OSError:  # on a network, or removed
        return []


def _shown(sessions: Sessions, id: str) -> Shown:
    shown = sessions.get(id)
    if shown is None:
        raise HTTPException(404, f"no session {id}")
    return shown


def _listed(sessions: Sessions, shown: Shown) -> dict[str, Any]:
    shown.loaded.wait()
    history = shown.history
    samples = history.samples()
    names = list(dict.fromkeys(s["name"] for s in samples if s["name"]))
    live = sessions.links.of(shown.folder) is not None
    return {
        "id": shown.id,
        "folder": str(shown.folder.resolve()),
        "title": ", ".join(names) if 0 < len(names) <= 3 else shown.id,
        "live": live,
        "started": history.started,
        "ended": None if live else history.ended,
        "frames": history.frames,
        "samples": names,
        "elements": list(history.elements),
    }


def _decision(decision: dict[str, Any], waiting: set[str], quantities: dict[str, str]) -> dict[str, Any]:
    quantity = quantities.get(decision["rule"], "")
    evidence = [{**item, "quantity": quantity} for item in decision["evidence"]]
    return {**decision, "evidence": evidence, "can_approve": decision["id"] in waiting}


def _csv(table: dict[str, list[Any]]) -> Iterator[str]:
    """Yield the lines of a table, some thousand at a time."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(cell, table))
    for number, row in enumerate(zip(*table.values(), strict=True), 1):
        writer.writerow(["" if value != value else cell(value) for value in row])
        if number % 2000 == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _parquet(table: dict[str, list[Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table(table), out)
    return out.getvalue()


def _json(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")


def _signed_in(access: Access, token: str) -> Response:
    """Store the correct token in a cookie, and show the page."""
    if not access.fits(token):
        return HTMLResponse(_token_page("That is not the token of this dashboard."), 401)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(access.cookie, token, max_age=_COOKIE_S, httponly=True, samesite="strict")
    return answer


def _not_found(_: Request, error: Any) -> Response:
    return _json({"ok": False, "error": error.detail}, error.status_code)


def _invalid(_: Request, error: Any) -> Response:
    found = [f"{'.'.join(map(str, e['loc'][1:])) or 'order'}: {plain_message(e['msg'])}" for e in error.errors()]
    return _json({"ok": False, "error": "; ".join(found)}, 422)


def _refused(path: str, status: int, reason: str) -> Response:
    if path == "/" and status == 401:
        return HTMLResponse(_token_page(""), status)
    return JSONResponse({"ok": False, "error": reason}, status)


def _page() -> str:
    """Return the page; a browser may cache its files."""
    page = _STATIC / "index.html"
    if not page.is_file():
        return "<!doctype html><title>xas-agent</title><p>The API is at <a href=/api/openapi.json>/api</a>."
    return page.read_text(encoding="utf-8").replace('"static/', f'"static/{_mark()}/')


@functools.cache
def _mark() -> str:
    """Return a hash of the page's files for their path, which their imports of each other share."""
    known = hashlib.sha256()
    for file in sorted(_STATIC.iterdir(), key=lambda one: one.name):
        known.update(file.name.encode() + file.read_bytes())
    return known.hexdigest()[:12]


def _file(name: str, caching: str) -> Response:
    file = _STATIC / name
    if "/" in name or name.startswith(".") or not file.is_file():
        raise HTTPException(404, f"no file {name}")
    media = _TYPES.get(Path(name).suffix, "application/octet-stream")
    return Response(file.read_bytes(), media_type=media, headers={"Cache-Control": caching})


def _token_page(message: str) -> str:
    said = f'<p class="wrong" role="alert">{html.escape(message)}</p>' if message else ""
    return (_STATIC / "token.html").read_text(encoding="utf-8").replace("<!-- message -->", said)


def folders_of(given: Sequence[Path]) -> list[Path]:
    """Return each folder once, in the given order."""
    return list({folder.resolve(): folder for folder in given}.values())
