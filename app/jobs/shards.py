"""``xas-agent dataset append``, ``merge`` and ``tables``: data sets that grow while FEFF runs."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...agent.types import InputError
from ...models.cores import core_count
from ...wording import counted
from .dataset import and_failed, labels_file, log_failures, working

if TYPE_CHECKING:
    from ...models.datasets import FeffSpectrum, Row


def append_rows(sources: Sequence[Path], out: Path, *, least: int, jobs: int | None, name: str | None = None) -> str:
    """Write the rows of the sources that a folder of data sets does not have yet as a shard; return a summary.

    Parameters
    ----------
    sources : sequence of Path
        Folders of FEFF runs whose sites have a split, and ``.npz`` files of data sets.
    out : Path
        Folder of the data sets, with their shards.
    least : int
        Smallest number of new rows for which a shard is written.
    jobs : int, optional
        Number of processes; all cores by default.
    name : str, optional
        Data set that receives the rows instead, such as ``ti_k_disordered``.

    Raises
    ------
    InputError
        A source cannot be read, or rows do not belong in the data set ``name``.
    """
    absorber = _absorber_of(name) if name else None
    with working() as progress:
        from ...models import datasets

        jobs = jobs or core_count()
        there = datasets.ids_of(out, name)
        failed: list[str] = []
        rows: list[Row] = []
        spectra: list[FeffSpectrum] = []
        for source in sources:
            if source.is_dir():
                found, unread = datasets.collect(source, None, jobs, progress)
                spectra += [s for s in found if s.site.id not in there]
                failed += unread
            else:
                rows += datasets.read_rows(source)
        # Labels take long, and are not computed for too few rows.
        if len(spectra) + sum(r.id not in there for r in rows) >= least:
            known, unlabelled = datasets.label([s.site for s in spectra], labels_file(out, "shards"), jobs, progress)
            failed += unlabelled
            rows += [datasets.Row.of(s, found) for s in spectra if (found := datasets.labels_of(s.site, known))]
        log_failures(failed)
        new, dropped, twice = datasets.usable(rows, there)
        if others := sorted({r.element for r in new} - {absorber or r.element for r in new}):
            raise InputError(f"{name}: rows of {', '.join(others)}; expected {absorber} alone")
        if len(new) < max(least, 1):
            waiting = len(spectra) or len(new)
            missing = f"{'nothing written' if name else 'no shard'} of fewer than {max(least, 1)}"
            return f"{out}: {counted(waiting, 'new row')}, {missing}{and_failed(failed)}"
        path = datasets.add_to_set(out, name, new) if name else datasets.append(out, new)
    return f"{path}: {counted(len(new), 'row')}{_left_out(dropped, twice)}{and_failed(failed)}"


def _absorber_of(name: str) -> str:
    if not (found := re.fullmatch(r"([a-z]{1,2})_k_[a-z0-9_]+", name)):
        raise InputError(f"--name {name}: expected ABSORBER_k_NAME in lower case, e.g. ti_k_disordered")
    return found[1].capitalize()


def merge_shards(folder: Path) -> str:
    """Merge the shards of a folder into its data sets; return a summary.

    Raises
    ------
    InputError
        A file cannot be read.
    """
    with working():
        from ...models.datasets import merge

        done = merge(folder)
    moved = f", {done.judging} moved to val, where their material is" if done.judging else ""
    return (
        f"{folder}: {counted(done.rows, 'row')}, {done.added} of them new{moved}{_left_out(done.dropped, done.twice)}"
    )


def tables_of(folder: Path) -> str:
    """Return the tables of a folder's data sets, in Markdown.

    Raises
    ------
    InputError
        The folder has no data set, or a file cannot be read.
    """
    with working():
        from ...models.datasets import tables

        parts = tables(folder)
    texts: list[str] = []
    for title, header, rows in parts:
        lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
        texts.append("\n".join([*([title, ""] if title else []), *("| " + " | ".join(x) + " |" for x in lines)]))
    return "\n\n".join(texts)


def _left_out(dropped: Mapping[str, int], twice: int) -> str:
    parts = [f", left out {count} with {why}" for why, count in dropped.items()]
    return "".join(parts) + (f", {twice} there already" if twice else "")
