"""The ``xas-agent dataset`` commands: show progress and return a summary."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...agent.types import InputError, get_logger, read_yaml
from ...models.cores import core_count
from ..output.progress import progress_bars

if TYPE_CHECKING:
    from ...models.datasets import FeffSettings, FeffSpectrum, Labels, Progress, Site

_SIGNAL_EXIT_CODE = 128  # added by a shell to the number of the signal that ended a program

_log = get_logger()


def label_structures(
    structures: Path, absorber: str, name: str, out: Path, *, val_fraction: float, seed: int, jobs: int | None
) -> str:
    """Write ``out/NAME.csv``, the descriptors of all distinct sites in a folder of structures; return a summary.

    Raises
    ------
    InputError
        There is no such site, or no site could be labelled.
    """
    with _working() as progress:
        from ...models.datasets import SplitSettings, find_sites, label, labels_of, split_materials, write_table

        jobs = jobs or core_count()
        sites, failed = find_sites(structures, _symbol(absorber), jobs, progress)
        known, unlabelled = label(sites, _kept(out, name), jobs, progress)
        rows = [(s, found) for s in sites if (found := labels_of(s, known))]
        _log_failures([*failed, *unlabelled])
        if not rows:
            raise InputError(f"{structures}: none of {len(sites)} sites could be labelled")
        sides = split_materials([s.material for s, _ in rows], SplitSettings(val_fraction=val_fraction, seed=seed))
        write_table(out / f"{name}.csv", [s for s, _ in rows], [found for _, found in rows], sides)
    return f"{out / name}.csv: {_rows([s for s, _ in rows], sides)}{_and_failed(failed, unlabelled)}"


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
    """Write FEFF's input for all distinct sites, run FEFF where there is no spectrum, and return a summary.

    Parameters
    ----------
    absorber : None for a queue, each of whose jobs names its own
    again : whether to run sites whose attempts have all failed

    Raises
    ------
    InputError
        There is no such site, or FEFF is not installed; the inputs are then written.
    """
    with _working() as progress, _ended_by_sigterm():
        from ...models.datasets import feff_runs, find_feff, find_sites

        settings, jobs = _feff_settings(config), jobs or core_count()
        sites, unread = find_sites(structures, _symbol(absorber) if absorber else None, jobs, progress)
        with feff_runs.held(runs):
            todo, failed = feff_runs.write_inputs(sites, runs, settings, jobs, progress)
            there = len(sites) - len(todo) - len(failed)
            failed = [*unread, *failed]
            _log_failures(failed)
            if again:
                for folder in todo:
                    feff_runs.try_again(folder)
            waiting = [folder for folder in todo if not feff_runs.given_up(folder, settings)]
            before = f", {n} failed before (--again tries them again)" if (n := len(todo) - len(waiting)) else ""
            if write_only:
                return f"{runs}: inputs of {len(waiting)} sites to run{before}{_and_failed(failed)}"
            if not waiting:
                return f"{runs}: {there} runs there already{before}{_and_failed(failed)}"
            try:
                found = find_feff(program)
            except InputError as e:
                raise InputError(f"the inputs of {len(waiting)} sites are in {runs}; {e}") from None
            _log.info("FEFF", program=found, runs=len(waiting), already=there)
            done = 0
            for folder, why in feff_runs.run(waiting, found, settings, jobs, progress):
                if why:
                    failed.append(f"{folder.name}: {why}")
                    _log_failures(failed[-1:])
                else:
                    done += 1
                    _log.info("done", site=folder.name, runs=f"{done} of {len(waiting)}")
    return f"{runs}: {done} runs done, {there} there already{before}{_and_failed(failed)}"


def state(runs: Path, *, config: Path | None) -> str:
    """Return the numbers of sites by state, a line per absorber, and the reasons of failures.

    Raises
    ------
    InputError
        The folder contains no runs.
    """
    with _working():
        from ...models.datasets import feff_runs

        found = feff_runs.states(runs, _feff_settings(config))
    if not found:
        raise InputError(f"{runs}: no runs; expected a folder that xas-agent dataset feff wrote")
    lines = []
    for absorber, s in found.items():
        each_s = s.seconds / (s.done + s.failed) if s.done + s.failed else 0
        lines.append(
            f"{absorber}: {s.done} done ({s.retried} after a retry), {s.failed} failed, {s.waiting} waiting;"
            f" {each_s:.0f} s a site"
        )
        lines += [f"    {count} {why}" for why, count in s.reasons.most_common()]
    totals = {what: sum(getattr(s, what) for s in found.values()) for what in ("done", "failed", "waiting")}
    return "\n".join([*lines, "all: " + ", ".join(f"{n} {what}" for what, n in totals.items())])


def collect_runs(
    runs: Path, absorber: str | None, name: str, out: Path, *, val_fraction: float, seed: int, jobs: int | None
) -> str:
    """Write ``out/NAME.npz`` and ``NAME.csv`` from a folder of FEFF runs; return a summary.

    Raises
    ------
    InputError
        There is no readable run, or there are several absorbers and none is named.
    """
    with _working() as progress:
        from ...models.datasets import collect, label, labels_of

        jobs = jobs or core_count()
        if not runs.is_dir():
            raise InputError(f"{runs}: no such folder; expected folders of FEFF runs in it")
        spectra, failed = collect(runs, _symbol(absorber) if absorber else None, jobs, progress)
        known, unlabelled = label([s.site for s in spectra], _kept(out, name), jobs, progress)
        rows = [(s, found) for s in spectra if (found := labels_of(s.site, known))]
        return _pair(rows, out, name, val_fraction, seed, [*failed, *unlabelled])


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
        The files are no such documents, or have no K-edge XANES of the absorber.
    """
    with _working() as progress:
        from ...models.datasets import common_labels, describe_counts, label, labels_of, read_documents

        jobs = jobs or core_count()
        found, others = read_documents(documents, _symbol(absorber), jobs, progress)
        known, failed = label([s for d in found for s in d.sites], _kept(out, name), jobs, progress)
        rows: list[tuple[FeffSpectrum, Labels]] = []
        for d in found:
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

    _log_failures(failed)
    if not rows:
        raise InputError(f"{out / name}: not one row could be labelled")
    sites = [s.site for s, _ in rows]
    sides = split_materials([s.material for s in sites], SplitSettings(val_fraction=val_fraction, seed=seed))
    write_pair(out, name, [s for s, _ in rows], [labels for _, labels in rows], sides)
    return f"{out / name}.npz and .csv: {_rows(sites, sides)}{_and_failed(failed)}"


def _rows(sites: "Sequence[Site]", sides: dict[str, str]) -> str:
    validate = sum(sides[s.material] == "val" for s in sites)
    return f"{len(sites)} rows of {len(sides)} materials, {validate} rows to validate"


def _and_failed(*failed: Sequence[str]) -> str:
    count = sum(map(len, failed))
    return f", {count} failed" if count else ""


def _log_failures(failed: Sequence[str]) -> None:
    for why in failed:
        _log.warning("left out", what=why)


def _kept(out: Path, name: str) -> Path:
    return out / f"{name}.labels.jsonl"


def _symbol(absorber: str) -> str:
    from pymatgen.core import Element

    if not Element.is_valid_symbol(absorber):
        raise InputError(f"absorber {absorber!r}: expected an element's symbol, e.g. Co")
    return absorber


def _feff_settings(path: Path | None) -> "FeffSettings":
    from ...models.datasets import FeffSettings

    return FeffSettings() if path is None else read_yaml(path, FeffSettings)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM also end the running program, as Ctrl-C does; a second one ends this process at once."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(_SIGNAL_EXIT_CODE + number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _working() -> "Iterator[Progress]":
    """Show progress bars on stderr; name the extra if it is not installed."""
    try:
        with progress_bars() as show:
            yield show
    except ModuleNotFoundError as e:
        if not (e.name or "").startswith("pymatgen"):
            raise
        raise InputError("structures and FEFF need the [train] extra: pip install 'xas-agent[train]'") from None
