"""Spectra of files through alignment and estimation, for ``infer`` and ``align``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...adapters.files import computed_frame_of, frame_of, read_all
from ...adapters.formats import Columns, FileSpectrum, SpectrumFileError
from ...agent.estimate import Answer, EnergyUncertainty, FrameServer
from ...agent.spectra import SeriesAlignment, TheoryAlignment
from ...agent.types import Estimator, Frame, InputError, Reason, Refusal, get_logger
from ..config import Config
from ..wiring import load_tables

_log = get_logger()


class ChoiceError(InputError):
    """No model, or several, match the energies of a spectrum, and the user names none."""


def read_and_log(
    files: Sequence[Path], columns: Columns | None, refused: list[SpectrumFileError] | None = None
) -> list[FileSpectrum]:
    """Return the spectra of all files in their order, and log the readers' notes; see :func:`read_all`."""
    spectra: list[FileSpectrum] = []
    for path, in_file in read_all(files, columns, refused):
        for note in dict.fromkeys(note for spectrum in in_file for note in spectrum.notes):
            _log.warning("read", file=str(path), note=note)
        spectra += in_file
    return spectra


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

    Raises
    ------
    ChoiceError
        Several models match a spectrum, and the config names none.
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
    server = FrameServer(models, align, widths, named=bool(config.model.use))
    for answer in (server if estimate else server.aligned)(frames, by_time=True):
        i, refusal = answer.frame.seq_num - 1, answer.refusal
        if refusal is not None and refusal.reason is Reason.SEVERAL_MODELS:
            raise ChoiceError(f"{spectra[i].source}: {refusal.detail}; choose one with --model or --element")
        yield i, answer
