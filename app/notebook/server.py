"""Answers ``infer`` requests over a Unix socket that only its user can open; the models stay loaded."""

import io
import json
import os
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ..._version import __version__
from ...adapters.codecs import to_json
from ...adapters.files import Batch, expand, read_all, reasons_of
from ...adapters.formats import FileSpectrum
from ...agent.types import InputError, Settings, get_logger, validate_settings
from ..ask import exchange
from ..config import Config
from ..jobs.files import refuse_without_model, serve_spectra
from ..jobs.infer import render, rows_of
from ..line_server import line_server
from .estimates import loaded, settings_of
from .inputs import spectra_of

_log = get_logger()

MAX_REQUEST = 256 * 2**20
"""Largest request, bytes: some ten thousand spectra as numbers."""
_PROBE_S = 2.0
"""Longest wait for a process that already listens at the socket, s."""
_CHOOSE = "choose one with --model or --element"


class InferRequest(Settings):
    """A request: spectra of files, or spectra that the request contains."""

    files: tuple[str, ...] = ()
    """Absolute paths of files or folders, or patterns."""
    columns: dict[str, list[str | int]] | None = None
    """Columns of the files by role, as for :func:`read_spectra`."""
    energy: Any = None
    """Energies, (M,) or (N, M), eV, instead of files."""
    mu: Any = None
    """Absorption, (M,) or (N, M)."""
    reference: Any = None
    """Absorption of a foil measured at the same time, (M,) or (N, M)."""
    sample: str | list[str] | None = None
    """Name of the sample, or one name for each spectrum."""
    model: str | None = None
    element: str | None = None
    edge: str | None = None
    """Absorber and edge; they replace the server's own choice."""
    theory: bool = False
    """Whether the spectra are computed, on FEFF's energies and normalisation."""
    everything: bool = False
    """Whether to include descriptors that have no meaning for a mixture of sites."""
    form: Literal["table", "json", "csv"] | None = None
    """Form of the answer: a text as ``table``, ``json`` or ``csv``; unset: the rows."""
    width: int = Field(0, ge=0)
    """Width of a table, in characters; 0: no limit."""

    @model_validator(mode="after")
    def _has_spectra(self) -> Self:
        if bool(self.files) == (self.mu is not None):
            raise ValueError("found both files and mu, or neither, expected one of them")
        if relative := [name for name in self.files if not Path(name).is_absolute()]:
            raise ValueError(f"found {relative[0]}, expected absolute paths: the server has another folder")
        return self


class InferenceServer:
    """Answers requests at a socket, one after another.

    A request is one line of JSON: ``{"command": "infer", …}`` with the keys of :class:`InferRequest`, or
    ``{"command": "about"}``. The answer is also one line, with ``ok`` and ``version``. A refusal has ``error``; other
    answers have ``rows``, as ``xas-agent infer --format json`` prints them, or their ``text``, and ``set_aside``,
    ``refused`` and ``notes``.

    Parameters
    ----------
    config : Config
        Settings of all answers; its models are loaded at the start.
    path : Path
        Path of the socket.
    """

    def __init__(self, config: Config, path: Path) -> None:
        self._config, self.path = config, path
        self._lock = threading.Lock()
        models = loaded(config)
        self.models = {model.name: model.sha256 for model in models}
        """SHA-256 of the models, by name."""
        self._server = self._listen()

    def _listen(self) -> Any:
        """Return the server at a socket that only this user can open.

        Raises
        ------
        InputError
            Something listens or exists at the path already, or the socket cannot be created.
        """
        _make_room(self.path)
        before = os.umask(0o177)  # for the whole process, but only briefly: the socket never exists with more rights
        try:
            return line_server(self.path, self._answer, MAX_REQUEST)
        except OSError as error:
            raise InputError(f"{self.path}: no socket can be made: {error.strerror or error}") from None
        finally:
            os.umask(before)

    def serve(self) -> None:
        """Answer requests until :meth:`close` is called or the process is interrupted."""
        self._server.serve_forever()

    def close(self) -> None:
        """Remove the socket and answer no more; a request in progress is broken off."""
        self._server.server_close()
        self.path.unlink(missing_ok=True)

    def stop(self) -> None:
        """End :meth:`serve`, from another thread."""
        self._server.shutdown()

    def _answer(self, request: Mapping[str, Any], by: str) -> dict[str, Any]:
        try:
            answer = {"ok": True, **self._carry_out(dict(request))}
        except InputError as error:
            answer = {"ok": False, "error": str(error)}
        except Exception as error:  # one request must not end the server
            _log.exception("request not answered", command=str(request.get("command"))[:40])
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        return {"version": __version__, **answer}

    def _carry_out(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request.get("command")
        if command == "about":
            return {"pid": os.getpid(), "config_sha256": self._config.sha256, "models": self.models}
        if command != "infer":
            raise InputError(f"found command {command!r:.40}, expected infer or about")
        content = {key: value for key, value in request.items() if key not in ("command", "by")}
        asked = validate_settings(content, InferRequest, "infer")
        with self._lock:
            return self._infer(asked)

    def _infer(self, asked: InferRequest) -> dict[str, Any]:
        settings = settings_of(self._config, asked.model, asked.element, asked.edge, everything=asked.everything)
        batch = Batch()
        spectra = self._spectra(asked, batch)
        served = serve_spectra(spectra, loaded(settings) if spectra else (), settings, theory=asked.theory)
        if not batch.refused:
            refuse_without_model(served, _CHOOSE)
        rows = rows_of(served, settings, theory=asked.theory)
        answer: dict[str, Any] = {
            "spectra": len(rows),
            "set_aside": [row["set_aside"] for row in rows if "set_aside" in row],
            "refused": [len(batch.refused), reasons_of(batch.refused)],
            "notes": [*dict.fromkeys((s.source, note) for s, _ in served for note in s.notes)],
        }
        if asked.form is None:
            return {**answer, "rows": _plain(rows)}
        text = io.StringIO()
        render(rows, asked.form, text, asked.width)
        return {**answer, "text": text.getvalue()}

    @staticmethod
    def _spectra(asked: InferRequest, batch: Batch) -> list[FileSpectrum]:
        if asked.mu is not None:
            return spectra_of(asked.energy, asked.mu, asked.reference, asked.sample)
        files = expand(map(Path, asked.files))
        return [spectrum for _, in_file in read_all(files, asked.columns, batch) for spectrum in in_file]


def _plain(rows: Any) -> Any:
    """Return rows as JSON values; numbers that are not finite stay NaN, which Python can read."""
    return json.loads(to_json(rows))


def _make_room(path: Path) -> None:
    """Remove the socket that a killed server left; refuse any other file, and a server that answers."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise InputError(f"{path}: found a file, expected no file or the socket of an earlier server")
    except FileNotFoundError:
        return
    try:
        exchange(path, {"command": "about"}, _PROBE_S)
    except (ConnectionRefusedError, FileNotFoundError):
        with suppress(FileNotFoundError):
            path.unlink()
    except (OSError, ValueError):
        raise InputError(f"{path}: found a program that listens and does not answer; name another --socket") from None
    else:
        raise InputError(f"{path}: found a server that answers; use it, or name another --socket")
