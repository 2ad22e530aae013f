"""Spectra of files on the one path to their answers, which ``infer`` and ``align`` share."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...adapters.files import computed_frame_of, frame_of
from ...adapters.formats import Columns, FileSpectrum, read_spectra
from ...agent.estimate import Answer, EnergyUncertainty, FrameServer
from ...agent.spectra import SeriesAlignment, TheoryAlignment
from ...agent.types import Estimator, Frame, InputError, Reason, Refusal, get_logger
from ..config import Config
from ..wiring import tabulated

_log = get_logger()


class ChoiceError(InputError):
    """No model, or more than one, fits the energies, and none was named."""


def read_all(files: Sequence[Path], columns: Columns | None) -> list[FileSpectrum]:
    """The spectra of all files, in their order. Raises SpectrumFileError."""
    found: list[FileSpectrum] = []
    for path in files:
        spectra = read_spectra(path, columns=columns)
        for note in dict.fromkeys(note for s in spectra for note in s.notes):
            _log.warning("read", file=str(path), note=note)
        found += spectra
    return found


def answers_of(
    spectra: Sequence[FileSpectrum],
    models: Sequence[Estimator],
    config: Config,
    *,
    theory: bool = False,
    estimate: bool = True,
) -> Iterator[tuple[int, Answer | Refusal]]:
    """Serve spectra as if they had been streamed, in the order of time if each has one, else in the order given.

    Parameters
    ----------
    theory : the spectra are computed, on FEFF's energies
    estimate : False: they are aligned and not estimated

    Yields
    ------
    The place of each spectrum among ``spectra`` and its answer, or why no frame can be made of it.

    Raises
    ------
    ChoiceError
        Several models fit a spectrum, and none was named.
    """
    frames: list[Frame] = []
    for i, spectrum in enumerate(spectra):
        frame = (computed_frame_of if theory else frame_of)(spectrum, i + 1, config.fields)
        if isinstance(frame, Refusal):
            yield i, frame
        else:
            frames.append(frame)
    if theory:
        align, widths = TheoryAlignment(), None  # its energies are FEFF's own
    else:
        align = SeriesAlignment(config.alignment, tabulated=tabulated(config, models))
        widths = EnergyUncertainty(every=1)
    server = FrameServer(models, align, widths, named=bool(config.model.use))
    for answer in (server if estimate else server.aligned)(frames, by_time=True):
        i, refusal = answer.frame.seq_num - 1, answer.refusal
        if refusal is not None and refusal.reason is Reason.SEVERAL_MODELS:
            raise ChoiceError(f"{spectra[i].source}: {refusal.detail}; --model or --element says which")
        yield i, answer
