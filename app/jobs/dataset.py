"""The dataset commands: bars while they work, and what was done in words."""

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

SIGNALLED = 128  # from here on an exit code is that of a program ended by a signal

_log = get_logger()


def label_structures(
    structures: Path, absorber: str, name: str, out: Path, *, val_fraction: float, seed: int, jobs: int | None
) -> str:
    """Write ``out/NAME.csv``, the descriptors of every distinct site of a folder of structures; what was done.

    Raises
    ------
    InputError
        No such site, or nothing that could be labelled.
    """
    with _working() as progress:
        from ...models.datasets import SplitSettings, find_sites, label, labels_of, split_materials, write_table

        jobs = jobs or core_count()
        sites, failed = find_sites(structures, _symbol(absorber), jobs, progress)
        known, unlabelled = label(sites, _kept(out, name), jobs, progress)
        rows = [(s, found) for s in sites if (found := labels_of(s, known))]
        _tell([*failed, *unlabelled])
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
    """Write FEFF's input for every distinct site and run FEFF where it has not yet; what was done.

    Parameters
    ----------
    absorber : None for a queue, each of whose jobs names its own
    again : run too where every attempt of an earlier call failed

    Raises
    ------
    InputError
        No such site; or FEFF is not here, when the inputs are written and the message says so.
    """
    with _working() as progress, _ended_by_sigterm():
        from ...models.datasets import feff_runs, find_feff, find_sites

        settings, jobs = _feff_settings(config), jobs or core_count()
        sites, unread = find_sites(structures, _symbol(absorber) if absorber else None, jobs, progress)
        with feff_runs.held(runs):
            todo, failed = feff_runs.write_inputs(sites, runs, settings, jobs, progress)
            there = len(sites) - len(todo) - len(failed)
            failed = [*unread, *failed]
            _tell(failed)
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
                    _tell(failed[-1:])
                else:
                    done += 1
                    _log.info("done", site=folder.name, runs=f"{done} of {len(waiting)}")
    return f"{runs}: {done} runs done, {there} there already{before}{_and_failed(failed)}"


def state(runs: Path, *, config: Path | None) -> str:
    """Where the sites of a folder of runs stand, a line an absorber, and why FEFF failed.

    Raises
    ------
    InputError
        It holds none.
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
    """Write ``out/NAME.npz`` and ``NAME.csv`` from a folder of FEFF runs; what was done.

    Raises
    ------
    InputError
        No run that could be read, or runs of several absorbers and none named.
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
    """Write ``out/NAME.npz`` and ``NAME.csv`` from XAS documents of the Materials Project; what was done.

    Raises
    ------
    InputError
        Not such documents, or none of the absorber's K-edge XANES.
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

    _tell(failed)
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


def _tell(failed: Sequence[str]) -> None:
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
    """SIGTERM ends the program that runs too, as Ctrl-C does; a second one ends this process at once."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(SIGNALLED + number)

    if threading.current_thread() is not threading.main_thread():  # which alone may set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _working() -> "Iterator[Progress]":
    """A bar on stderr for each thing done; and the extra named where it is missing."""
    try:
        with progress_bars() as show:
            yield show
    except ModuleNotFoundError as e:
        if not (e.name or "").startswith("pymatgen"):
            raise
        raise InputError("structures and FEFF need the [train] extra: pip install 'xas-agent[train]'") from None
