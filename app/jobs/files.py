"""Aligns and estimates spectra of files, for ``infer`` and ``align``."""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...adapters.files import Batch, by_reason, computed_frame_of, frame_of, read_all
from ...adapters.formats import Columns, FileSpectrum
from ...agent.estimate import Answer, EnergyUncertainty, FrameServer
from ...agent.spectra import SeriesAlignment, TheoryAlignment
from ...agent.types import Estimator, Frame, InputError, Reason, Refusal, get_logger
from ...models.lazy import LazyModel
from ..config import Config
from ..output.progress import progress_beside_messages
from ..wiring import load_models, load_tables

_log = get_logger()

_MAX_NAME_BYTES = 200
"""Largest length of a file name without its suffix, bytes; file systems allow 255."""


class ChoiceError(InputError):
    """No model matches any spectrum, or several do and the user named none, or another one."""


def serve_files(
    files: Sequence[Path], config: Config, columns: Columns | None, batch: Batch | None, **how: bool
) -> list[tuple[FileSpectrum, Answer | Refusal]]:
    """Read the files, then load the models and serve the spectra, with progress on stderr.

    Ctrl-C ends the reading, and the spectra read so far are served; a second Ctrl-C ends this too.

    Parameters
    ----------
    files : sequence of Path
    config : Config
    columns : mapping, optional
        As for :func:`read_spectra`.
    batch : Batch, optional
        Collects the errors of unreadable files, and whether Ctrl-C ended the work; without it, the first error is
        raised.
    **how
        As for :func:`answers_of`.

    Returns
    -------
    list of (FileSpectrum, Answer or Refusal)
        In the order of the files, without the spectra that an interruption left unanswered.

    Raises
    ------
    SpectrumFileError
        A file cannot be read; with ``batch``, no file can be read.
    ChoiceError
        No model matches any spectrum, or several do.
    ModelError
        The network of a model cannot be loaded.
    """
    spectra: list[FileSpectrum] = []
    answers: dict[int, Answer | Refusal] = {}
    with progress_beside_messages() as show:
        with keep_on_ctrl_c(batch):
            for number, (path, in_file) in enumerate(read_all(files, columns, batch), start=1):
                for note in dict.fromkeys(note for spectrum in in_file for note in spectrum.notes):
                    _log.warning("read", file=str(path), note=note)
                spectra += in_file
                show("reading", number + len(batch.refused if batch else ()), len(files))
        with keep_on_ctrl_c(batch):
            models = load_models(config, at_once=False) if spectra else ()
            for i, answer in answers_of(spectra, models, config, **how):
                answers[i] = answer
                show("serving", len(answers), len(spectra))
            for model in models:
                if isinstance(model, LazyModel):
                    model.check()
    served = [(spectra[i], answers[i]) for i in sorted(answers)]
    if batch is None or not batch.refused:
        refuse_without_model(served, "choose one with --model or --element")
    return served


def serve_spectra(
    spectra: Sequence[FileSpectrum], models: Sequence[Estimator], config: Config, **how: bool
) -> list[tuple[FileSpectrum, Answer | Refusal]]:
    """Serve spectra in memory; return them, in their order, with their answers.

    Parameters
    ----------
    spectra : sequence of FileSpectrum
    models : sequence of Estimator
    config : Config
    **how
        As for :func:`answers_of`.
    """
    answers = dict(answers_of(spectra, models, config, **how))
    return [(spectrum, answers[i]) for i, spectrum in enumerate(spectra)]


@contextmanager
def keep_on_ctrl_c(batch: Batch | None) -> Iterator[None]:
    """End the block at Ctrl-C without an error, and record this in the batch."""
    try:
        yield
    except KeyboardInterrupt:
        if batch is None:
            raise
        batch.interrupted = True


def refuse_without_model(served: Sequence[tuple[FileSpectrum, Answer | Refusal]], choose: str) -> None:
    """Raise ChoiceError if no spectrum has a model; the message lists the spectra of each reason.

    Parameters
    ----------
    served : sequence of (FileSpectrum, Answer or Refusal)
    choose : str
        Advice for the case that several models fit.
    """
    refusals = [(spectrum.id, refusal) for spectrum, answer in served if (refusal := refusal_of(answer))]
    reasons = {refusal.reason for _, refusal in refusals}
    if not refusals or len(refusals) < len(served) or reasons - {Reason.NO_MODEL, Reason.SEVERAL_MODELS}:
        return
    lines = by_reason((id, refusal.detail) for id, refusal in refusals)
    remedy = f"; {choose}" if Reason.SEVERAL_MODELS in reasons else ""
    raise ChoiceError("\n".join(lines) + remedy)


def refusal_of(answer: Answer | Refusal) -> Refusal | None:
    """Return the reason why a spectrum is set aside; None if it is served."""
    return answer if isinstance(answer, Refusal) else answer.refusal


def answers_of(
    spectra: Sequence[FileSpectrum],
    models: Sequence[Estimator],
    config: Config,
    *,
    theory: bool = False,
    estimate: bool = True,
    energy_uncertainty: bool = True,
) -> Iterator[tuple[int, Answer | Refusal]]:
    """Align and estimate spectra like the frames of a stream.

    Frames are served in the order of time if all spectra have a time, otherwise in the given order.

    Parameters
    ----------
    spectra : sequence of FileSpectrum
    models : sequence of Estimator
    config : Config
    theory : bool
        Whether the spectra are computed, on FEFF's energies.
    estimate : bool
        Whether to estimate; otherwise the spectra are only aligned.
    energy_uncertainty : bool
        Whether the intervals include the uncertainty of measured energies, which costs several passes of the network.

    Yields
    ------
    index : int
        Index of the spectrum in ``spectra``.
    answer : Answer or Refusal
        Answer to the spectrum, or the reason why it is not a valid frame.
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
        widths = EnergyUncertainty(every=1, noise_every=1) if energy_uncertainty else None
    server = FrameServer(models, align, widths, named=bool(config.model.use or config.fields.element))
    for answer in (server if estimate else server.aligned)(frames, by_time=True):
        yield answer.frame.seq_num - 1, answer


def distinct_ids(spectra: Sequence[tuple[str, str]], taken: Iterable[str] = ()) -> list[str]:
    """Return an id for each spectrum, such that all file names differ even if case is ignored.

    Colliding ids get the folder as a prefix and, if that is not enough, a number.

    Parameters
    ----------
    spectra : sequence of (str, str)
        Id and file of each spectrum.
    taken : iterable of str
        File names, without suffixes, that no spectrum may have.
    """
    ids = [id for id, _ in spectra]
    reserved = set(map(_plain, taken))
    shared = {name for name, count in Counter(map(_plain, ids)).items() if count > 1} | reserved
    used = {_plain(id) for id in ids} - shared | reserved
    for i, (id, source) in enumerate(spectra):
        if _plain(id) in shared:
            base = ids[i] = "/".join((*Path(source).parent.parts[-1:], id)).lstrip("/")
            number = 1
            while _plain(ids[i]) in used:
                number += 1
                ids[i] = f"{base}-{number}"
            used.add(_plain(ids[i]))
    return ids


def _plain(id: str) -> str:
    return name_of(id).casefold()


def name_of(id: str) -> str:
    """Return an id as a file name; a long one is shortened in the middle and gets a checksum.

    >>> name_of("NiO scan.xdi:0")
    'NiO_scan.xdi_0'
    """
    name = re.sub(r"[^\w.+-]+", "_", id).lstrip(".") or "_"
    raw = name.encode()
    if len(raw) <= _MAX_NAME_BYTES:
        return name
    half = _MAX_NAME_BYTES // 2 - 5
    ends = (raw[:half].decode(errors="ignore"), raw[-half:].decode(errors="ignore"))
    return f"{ends[0]}_{zlib.crc32(raw):08x}_{ends[1]}"
