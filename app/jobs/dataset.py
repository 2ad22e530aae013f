"""``xas-agent dataset``: makes training data with progress bars; each job returns a summary in words."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...agent.types import InputError, get_logger, read_yaml
from ...models.cores import core_count
from ...wording import counted
from ..output.progress import progress_bars

if TYPE_CHECKING:
    from ...models.datasets import FeffSettings, FeffSpectrum, Labels, Site
    from ...models.progress import Progress

_SIGNAL_EXIT_BASE = 128
"""Offset of the exit code of a program that a signal ended; the signal's number is added to it."""

_log = get_logger()


def label_structures(
    structures: Path, absorber: str, name: str, out: Path, *, val_fraction: float, seed: int, jobs: int | None
) -> str:
    """Write ``out/NAME.csv``, the descriptors of all distinct sites of the structures; return a summary.

    Raises
    ------
    InputError
        No structure contains the absorber, or no site can be labelled.
    """
    with working() as progress:
        from ...models.datasets import SplitSettings, find_sites, label, labels_of, split_materials, write_table

        jobs = jobs or core_count()
        sites, failed = find_sites(structures, symbol(absorber), jobs, progress)
        known, unlabelled = label(sites, labels_file(out, name), jobs, progress)
        rows = [(s, found) for s in sites if (found := labels_of(s, known))]
        log_failures([*failed, *unlabelled])
        if not rows:
            raise InputError(f"{structures}: no labels for any of {len(sites)} sites")
        sides = split_materials([s.material for s, _ in rows], SplitSettings(val_fraction=val_fraction, seed=seed))
        write_table(out / f"{name}.csv", [s for s, _ in rows], [found for _, found in rows], sides)
    return f"{out / name}.csv: {_rows([s for s, _ in rows], sides)}{and_failed(failed, unlabelled)}"


def compute(
    structures: Path,
    absorber: str | None,
    runs: Path,
    *,
    config: Path | None,
    program: str | None,
    write_only: bool,
    again: bool,
    jobs: int | None,
) -> str:
    """Write FEFF's input for all distinct sites and run FEFF for those not yet computed; return a summary.

    Parameters
    ----------
    structures : Path
        A structure file, a folder of them, or a queue of jobs.
    absorber : str or None
        Symbol of the absorber; None for a queue, whose jobs name it.
    runs : Path
        Folder of the runs.
    config : Path, optional
        YAML of FEFF settings.
    program : str, optional
        FEFF's program; by default ``feff`` on the PATH.
    write_only : bool
        Whether to write the inputs without running FEFF.
    again : bool
        Whether to repeat runs whose attempts have all failed.
    jobs : int, optional
        Number of processes; all cores by default.

    Raises
    ------
    InputError
        No structure contains the absorber, or FEFF is not installed; in the latter case the inputs are written.
    """
    with working() as progress, _ended_by_sigterm():
        from ...models.datasets import feff_runs, find_feff, find_sites

        settings, jobs = _feff_settings(config), jobs or core_count()
        sites, unread = find_sites(structures, symbol(absorber) if absorber else None, jobs, progress)
        with feff_runs.held(runs):
            todo, failed = feff_runs.write_inputs(sites, runs, settings, jobs, progress)
            there = len(sites) - len(todo) - len(failed)
            failed = [*unread, *failed]
            log_failures(failed)
            if again:
                for folder in todo:
                    feff_runs.try_again(folder)
            waiting = [folder for folder in todo if not feff_runs.given_up(folder, settings)]
            before = f", {n} failed before (--again tries them again)" if (n := len(todo) - len(waiting)) else ""
            if write_only:
                return f"{runs}: inputs of {len(waiting)} sites to run{before}{and_failed(failed)}"
            if not waiting:
                return f"{runs}: {counted(there, 'run')} there already{before}{and_failed(failed)}"
            try:
                feff = find_feff(program)
            except InputError as error:
                raise InputError(f"the inputs of {len(waiting)} sites are in {runs}; {error}") from None
            _log.info("FEFF", program=feff, runs=len(waiting), already=there)
            done = 0
            for folder, failure in feff_runs.run(waiting, feff, settings, jobs, progress):
                if failure:
                    failed.append(f"{folder.name}: {failure}")
                    log_failures(failed[-1:])
                else:
                    done += 1
                    _log.info("done", site=folder.name, runs=f"{done} of {len(waiting)}")
    return f"{runs}: {counted(done, 'run')} done, {there} there already{before}{and_failed(failed)}"


def state(runs: Path, *, config: Path | None) -> str:
    """Return the state of a folder of FEFF runs, one line per absorber, with the reasons of failures.

    Raises
    ------
    InputError
        The folder contains no runs.
    """
    with working():
        from ...models.datasets import feff_runs

        states = feff_runs.states(runs, _feff_settings(config))
    if not states:
        raise InputError(f"{runs}: found no runs, expected a folder of xas-agent dataset feff")
    lines = []
    for absorber, s in states.items():
        mean_s = s.seconds / (s.done + s.failed) if s.done + s.failed else 0
        lines.append(
            f"{absorber}: {s.done} done ({s.retried} after a retry), {s.failed} failed, {s.waiting} waiting;"
            f" {mean_s:.0f} s per site"
        )
        lines += [f"    {count} {why}" for why, count in s.reasons.most_common()]
    totals = {key: sum(getattr(s, key) for s in states.values()) for key in ("done", "failed", "waiting")}
    return "\n".join([*lines, "all: " + ", ".join(f"{n} {key}" for key, n in totals.items())])


def collect_runs(
    runs: Path, absorber: str | None, name: str, out: Path, *, val_fraction: float, seed: int, jobs: int | None
) -> str:
    """Write ``out/NAME.npz`` and ``NAME.csv`` from a folder of FEFF runs; return a summary.

    Raises
    ------
    InputError
        No run is readable, or the runs have several absorbers and ``absorber`` is None.
    """
    with working() as progress:
        from ...models.datasets import collect, label, labels_of

        jobs = jobs or core_count()
        if not runs.is_dir():
            raise InputError(f"{runs}: no such folder, expected a folder of FEFF runs")
        spectra, failed = collect(runs, symbol(absorber) if absorber else None, jobs, progress)
        if len(elements := sorted({s.site.element for s in spectra})) > 1:
            raise InputError(f"{runs}: runs of {', '.join(elements)}; name the absorber")
        known, unlabelled = label([s.site for s in spectra], labels_file(out, name), jobs, progress)
        rows = [(s, found) for s in spectra if (found := labels_of(s.site, known))]
        return _pair(rows, out, name, val_fraction, seed, [*failed, *unlabelled])


def import_omnixas(
    folder: Path, absorber: str, structures: Path, name: str, out: Path, *, parts: Sequence[str], jobs: int | None
) -> str:
    """Write ``out/NAME.npz`` and ``NAME.csv`` from the files that OmniXAS publishes; return a summary.

    Parameters
    ----------
    folder : Path
        ``tutorial_omnixas`` of OmniXAS's repository.
    absorber : str
        Symbol of the absorber.
    structures : Path
        Structures, named by their Materials Project ids.
    name : str
        Name of the data set.
    out : Path
        Folder of the data set.
    parts : sequence of str
        Parts of OmniXAS's split, which the rows keep: train, val, test.
    jobs : int, optional
        Number of processes; all cores by default.

    Raises
    ------
    InputError
        A file is missing or of another form, or no row has a structure.
    """
    with working() as progress:
        from ...models.datasets import PARTS, label, labels_of, read_omnixas

        if unknown := sorted(set(parts) - set(PARTS)):
            raise InputError(f"no part {', '.join(unknown)}; OmniXAS has {', '.join(PARTS)}")
        spectra, failed = read_omnixas(folder, symbol(absorber), parts, structures)
        sites = [s.site for s in spectra]
        known, unlabelled = label(sites, labels_file(out, name), jobs or core_count(), progress)
        rows = [(s, found) for s in spectra if (found := labels_of(s.site, known))]
        return _pair(rows, out, name, 0.0, 0, [*failed, *unlabelled])


def convert_documents(
    documents: Sequence[Path],
    absorber: str,
    name: str,
    out: Path,
    *,
    val_fraction: float,
    seed: int,
    jobs: int | None,
) -> str:
    """Write ``out/NAME.npz`` and ``NAME.csv`` from XAS documents of the Materials Project; return a summary.

    Raises
    ------
    InputError
        The files contain other data, or no K-edge XANES of the absorber.
    """
    with working() as progress:
        from ...models.datasets import common_labels, describe_counts, label, labels_of, read_documents

        jobs = jobs or core_count()
        converted, others = read_documents(documents, symbol(absorber), jobs, progress)
        known, failed = label([s for d in converted for s in d.sites], labels_file(out, name), jobs, progress)
        rows: list[tuple[FeffSpectrum, Labels]] = []
        for d in converted:
            labels = [labels_of(s, known) for s in d.sites]
            if all(labels):
                rows.append((d.spectrum, common_labels([x for x in labels if x])))
        done = _pair(rows, out, name, val_fraction, seed, failed)
    return done + (f"; left out: {describe_counts(others)}" if others else "")


def _pair(
    rows: "Sequence[tuple[FeffSpectrum, Labels]]",
    out: Path,
    name: str,
    val_fraction: float,
    seed: int,
    failed: list[str],
) -> str:
    from ...models.datasets import SplitSettings, split_materials, write_pair

    log_failures(failed)
    if not rows:
        raise InputError(f"{out / name}: no row with labels")
    sites = [s.site for s, _ in rows]
    sides = split_materials([s.material for s in sites], SplitSettings(val_fraction=val_fraction, seed=seed))
    write_pair(out, name, [s for s, _ in rows], [labels for _, labels in rows], sides)
    return f"{out / name}.npz and .csv: {_rows(sites, sides)}{and_failed(failed)}"


def _rows(sites: "Sequence[Site]", sides: dict[str, str]) -> str:
    validate = sum((s.split or sides[s.material]) == "val" for s in sites)
    return f"{counted(len(sites), 'row')} of {counted(len(sides), 'material')}, {validate} of them for validation"


def and_failed(*failed: Sequence[str]) -> str:
    """Return the number of failures as the end of a summary; an empty text if there are none."""
    count = sum(map(len, failed))
    return f", {count} failed" if count else ""


def log_failures(failed: Sequence[str]) -> None:
    """Log what was left out, and why."""
    for failure in failed:
        _log.warning("left out", site=failure)


def labels_file(out: Path, name: str) -> Path:
    """Return the file in which a data set stores its labels between calls."""
    return out / f"{name}.labels.jsonl"


def symbol(absorber: str) -> str:
    """Return the symbol of an element.

    Raises
    ------
    InputError
        ``absorber`` is not the symbol of an element.
    """
    from pymatgen.core import Element

    if not Element.is_valid_symbol(absorber):
        raise InputError(f"absorber {absorber!r}: expected the symbol of an element, such as Co")
    return absorber


def _feff_settings(path: Path | None) -> "FeffSettings":
    from ...models.datasets import FeffSettings

    return FeffSettings() if path is None else read_yaml(path, FeffSettings)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM also end the child processes, as Ctrl-C does; a second SIGTERM ends this process at once."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(_SIGNAL_EXIT_BASE + number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def working() -> "Iterator[Progress]":
    """Show progress bars on stderr; name the extra if pymatgen or the packages for melts are missing."""
    try:
        with progress_bars() as progress:
            yield progress
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("ase", "chgnet"):
            raise InputError("melts require the [quench] extra: pip install 'xas-agent[quench]'") from None
        if not name.startswith("pymatgen"):
            raise
        raise InputError("structures and FEFF require the [train] extra: pip install 'xas-agent[train]'") from None
