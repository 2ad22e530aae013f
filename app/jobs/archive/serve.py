"""Computes one part of a backfill in a worker: serves its spectra and writes a table."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from ....agent.estimate import Answer, EnergyUncertainty, FrameServer
from ....agent.spectra import SeriesAlignment, TheoryAlignment
from ....agent.types import Frame, Reason, Refusal
from ....models.engines import EngineName
from ....models.runtime import Model, configure_torch
from ...wiring import load_tables, model_folders, versions
from ..files import refusal_of
from .items import Item, items_of
from .table import PartTable
from .work import NAMED, Part, Work, WorkFailed, Written


def write_part(work: Work, part: Part) -> Written:
    """Serve the spectra of a part, and write their rows under a hidden name in the output folder.

    Parameters
    ----------
    work : Work
    part : Part

    Returns
    -------
    Written

    Raises
    ------
    WorkFailed
        The worker has other models, a catalogue does not answer, or the disk cannot store the part.
    """
    try:
        return _write(work, part)
    except WorkFailed:
        raise
    except Exception as error:  # many exception types cannot be sent to another process
        first = part.pieces[0]
        raise WorkFailed(f"{first.source}: not done: {type(error).__name__}: {error}") from None


def _write(work: Work, part: Part) -> Written:
    models = _models(work)
    server = _server(work, models)
    name, rows, reasons = f".part-{uuid4().hex}.tmp", 0, dict[str, int]()
    refused: list[tuple[str, str]] = []
    for items, by_time in items_of(part.lead, work):
        for _ in server.aligned(_frames(items), by_time=by_time):
            pass  # only for the memory of the alignment
    about = {**work.about, "versions": versions(work.config.model.engine)}
    everything = work.theory or work.config.serving.single_site
    with PartTable(Path(work.folder) / name, models, about, everything=everything) as table:
        for items, by_time in items_of(part.pieces, work):
            answered = _answered(items, server, by_time=by_time)
            table.write(answered)
            rows += len(answered)
            for item, answer in answered:
                if refusal := refusal_of(answer):
                    reasons[str(refusal.reason)] = reasons.get(str(refusal.reason), 0) + 1
                    if refusal.reason is Reason.FILE_NOT_READABLE and len(refused) < NAMED:
                        refused.append((item.source, refusal.detail))
    return Written(name, rows, reasons, refused)


def _answered(items: Sequence[Item], server: FrameServer, *, by_time: bool) -> list[tuple[Item, Answer | Refusal]]:
    """Return the items with their answers, in the given order."""
    answers = {id(answer.frame): answer for answer in server(_frames(items), by_time=by_time)}
    return [(item, item.frame if isinstance(item.frame, Refusal) else answers[id(item.frame)]) for item in items]


def _frames(items: Sequence[Item]) -> list[Frame]:
    return [item.frame for item in items if isinstance(item.frame, Frame)]


def _server(work: Work, models: Sequence[Model]) -> FrameServer:
    """Return a server of frames like the agent's, without any history."""
    config = work.config
    named = bool(config.model.use or config.fields.element)
    if work.theory:
        return FrameServer(models, TheoryAlignment(), None, named=named)
    align = SeriesAlignment(config.alignment, tabulated=load_tables(config, models))
    return FrameServer(models, align, EnergyUncertainty(), named=named)


def _models(work: Work) -> Sequence[Model]:
    """Return the models of this worker; they must equal those of the command."""
    config = work.config
    folders = tuple(model_folders(config))
    fast, how = config.serving.precision == "fast", config.model
    models = _loaded(folders, how.device, how.engine, how.threads or 1, fast)
    found = {model.name: model.sha256 for model in models}
    if found != dict(work.models):
        other = ", ".join(sorted(dict(set(found.items()) ^ set(work.models.items()))))
        raise WorkFailed(f"a worker has other models than this command ({other}); install the same version there")
    return models


@lru_cache(maxsize=2)
def _loaded(
    folders: tuple[Path, ...], device: str, engine: EngineName, threads: int, fast: bool
) -> tuple[Model, ...]:
    if engine != "onnx":
        configure_torch(threads, fast)  # as in a process of the agent
    models = tuple(Model(folder, device, engine, threads) for folder in folders)
    for model in models:
        model.warm_up()
    return models
