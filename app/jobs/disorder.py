"""``xas-agent dataset disorder``: disordered structures as a queue of FEFF jobs."""

from pathlib import Path

from ...agent.types import InputError, read_yaml
from ...models.cores import core_count
from .dataset import and_failed, log_failures, symbol, working


def make_disordered(
    structures: Path,
    absorber: str,
    out: Path,
    *,
    amplitudes_a: tuple[float, ...],
    count: int,
    quenches: int,
    quench_sites: int,
    config: Path | None,
    val_fraction: float,
    seed: int,
    jobs: int | None,
) -> str:
    """Write a queue of jobs of rattled and quenched structures; return a summary.

    Parameters
    ----------
    structures : Path
        Crystals: a structure file or a folder of them.
    absorber : str
        Symbol of the absorber.
    out : Path
        Queue, ``.jsonl`` or ``.jsonl.gz``.
    amplitudes_a : tuple of float
        Standard deviations of the displacements along each axis, Å.
    count : int
        Rattled structures of each crystal and amplitude, with one site each.
    quenches : int
        Quenched structures of each composition.
    quench_sites : int
        Sites of each quenched structure.
    config : Path, optional
        YAML of :class:`~xas_agent.models.datasets.QuenchSettings`.
    val_fraction : float
        Share of the structures for validation.
    seed : int
        Seed of all random numbers.
    jobs : int, optional
        Number of melts at the same time; all cores by default.

    Raises
    ------
    InputError
        Nothing is asked for, no structure has the absorber, displacements are too large, or the extra is missing.
    """
    if not amplitudes_a and not quenches:
        raise InputError("nothing to make; give --rattle, --quench or both")
    if out.suffixes[-2:] != [".jsonl", ".gz"] and out.suffix != ".jsonl":
        raise InputError(f"{out}: expected a name that ends in .jsonl or .jsonl.gz")
    with working() as progress:
        from ...models.datasets import QuenchSettings, RattleSettings, disorder

        settings = QuenchSettings() if config is None else read_yaml(config, QuenchSettings)
        crystals = disorder.read_crystals(structures, symbol(absorber))
        failed: list[str] = []
        try:
            made = list(disorder.rattles(crystals, RattleSettings(amplitudes_a=amplitudes_a, count=count), seed))
        except ValueError as error:
            raise InputError(str(error)) from None
        if quenches:
            amorphous, failed = disorder.quenches(crystals, quenches, settings, seed, jobs or core_count(), progress)
            made += amorphous
        log_failures(failed)
        if not made:
            raise InputError(f"{structures}: no structure could be made; {failed[0]}")
        queue = disorder.jobs_of(made, absorber, {disorder.AMORPHOUS: quench_sites}, val_fraction, seed)
        disorder.write_jobs(out, queue)
    validate = sum(job["split"] == "val" for job in queue)
    return f"{out}: {len(queue)} sites of {len(made)} structures, {validate} for validation{and_failed(failed)}"
