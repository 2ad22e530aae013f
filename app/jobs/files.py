"""Spectra of files through alignment and estimation, for ``infer`` and ``align``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...adapters.files import Batch, computed_frame_of, frame_of, listed, read_all
from ...adapters.formats import Columns, FileSpectrum
from ...agent.estimate import Answer, EnergyUncertainty, FrameServer
from ...agent.spectra import SeriesAlignment, TheoryAlignment
from ...agent.types import Estimator, Frame, InputError, Reason, Refusal, get_logger
from ..config import Config
from ..output.progress import progress_on_terminal
from ..wiring import load_models, load_tables

_log = get_logger()


class ChoiceError(InputError):
    """No model, or several, match each spectrum, and the user names none or another."""


def serve_files(
    files: Sequence[Path], config: Config, columns: Columns | None, batch: Batch | None, **how: bool
) -> tuple[list[FileSpectrum], dict[int, Answer | Refusal]]:
    """Read the files, then load the models and serve the spectra, with progress on a terminal.

    Ctrl-C ends the reading, and the spectra read until then are served; the second Ctrl-C ends this too.

    Parameters
    ----------
    files : sequence of Path
    config : Config
    columns : mapping, optional
        As for :func:`read_spectra`.
    batch : Batch, optional
        Gets the errors of the files that cannot be read, and whether Ctrl-C ended the work; without it, the first
        error is raised.
    **how
        As for :func:`answers_of`.

    Returns
    -------
    spectra : list of FileSpectrum
        In the order of the files, without those that an interruption left unanswered.
    answers : dict of int to Answer or Refusal
        One per spectrum, by its index.

    Raises
    ------
    SpectrumFileError
        A file cannot be read, or with ``batch``: none of the files.
    ChoiceError
        No model, or several, match each spectrum.
    """
    spectra: list[FileSpectrum] = []
    answers: dict[int, Answer | Refusal] = {}
    with progress_on_terminal() as show:
        with keep_on_ctrl_c(batch):
            for number, (path, in_file) in enumerate(read_all(files, columns, batch), start=1):
                for note in dict.fromkeys(note for spectrum in in_file for note in spectrum.notes):
                    _log.warning("read", file=str(path), note=note)
                spectra += in_file
                show("reading", number + len(batch.refused if batch else ()), len(files))
        with keep_on_ctrl_c(batch):
            for i, answer in answers_of(spectra, load_models(config) if spectra else (), config, **how):
                answers[i] = answer
                show("serving", len(answers), len(spectra))
    if batch is None or not batch.refused:
        _refuse_without_model(spectra, answers)
    kept = sorted(answers)
    return [spectra[i] for i in kept], {new: answers[old] for new, old in enumerate(kept)}


@contextmanager
def keep_on_ctrl_c(batch: Batch | None) -> Iterator[None]:
    """End the block at Ctrl-C without an error, and note this in the batch."""
    try:
        yield
    except KeyboardInterrupt:
        if batch is None:
            raise
        batch.interrupted = True


def _refuse_without_model(spectra: Sequence[FileSpectrum], answers: Mapping[int, Answer | Refusal]) -> None:
    """Raise ChoiceError if no spectrum has a model, with the spectra of each reason."""
    choices = {
        i: refusal.detail
        for i, answer in answers.items()
        if (refusal := refusal_of(answer)) and refusal.reason in (Reason.NO_MODEL, Reason.SEVERAL_MODELS)
    }
    if not choices or len(choices) < len(answers):
        return
    ids: dict[str, list[str]] = {}
    for i, detail in sorted(choices.items()):
        ids.setdefault(detail, []).append(spectra[i].id)
    lines = [f"{listed(named)}: {detail}" for detail, named in ids.items()]
    raise ChoiceError("\n".join(lines) + "; choose one with --model or --element")


def refusal_of(answer: Answer | Refusal) -> Refusal | None:
    """Return the reason for which a spectrum is set aside; None if it is served."""
    return answer if isinstance(answer, Refusal) else answer.refusal


def answers_of(
    spectra: Sequence[FileSpectrum],
    models: Sequence[Estimator],
    config: Config,
    *,
    theory: bool = False,
    estimate: bool = True,
) -> Iterator[tuple[int, Answer | Refusal]]:
    """Align and estimate spectra as the frames of a stream.

    Frames are served in the order of time if all spectra have one, else in the given order.

    Parameters
    ----------
    spectra : sequence of FileSpectrum
    models : sequence of Estimator
    config : Config
    theory : bool
        Whether the spectra are computed, on FEFF's energies.
    estimate : bool
        Whether to estimate; otherwise the spectra are only aligned.

    Yields
    ------
    index : int
        Index of the spectrum in ``spectra``.
    answer : Answer or Refusal
        Its answer, or the reason why it is not a valid frame.
    """
    frames: list[Frame] = []
    for i, spectrum in enumerate(spectra):
        frame = (computed_frame_of if theory else frame_of)(spectrum, i + 1, config.fields)
        if isinstance(frame, Refusal):
            yield i, frame
        else:
            frames.append(frame)
    if theory:
        align, widths = TheoryAlignment(), None  # computed energies need no alignment
    else:
        align = SeriesAlignment(config.alignment, tabulated=load_tables(config, models))
        widths = EnergyUncertainty(every=1)
    server = FrameServer(models, align, widths, named=bool(config.model.use or config.fields.element))
    for answer in (server if estimate else server.aligned)(frames, by_time=True):
        yield answer.frame.seq_num - 1, answer
