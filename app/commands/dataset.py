"""The ``xas-agent dataset`` commands: training data from structures, FEFF and the Materials Project."""

from pathlib import Path
from typing import Annotated

import typer

from .shared import exit_on_error

dataset_app = typer.Typer(
    help="Make training data from structures, FEFF and the Materials Project.", no_args_is_help=True
)

AbsorberOption = Annotated[str, typer.Option("--absorber", help="Symbol of the absorber, e.g. Co.")]
NameOption = Annotated[str, typer.Option("--name", help="Name of the data set and of its files, e.g. co_k.")]
WhereOption = Annotated[Path, typer.Option("--out", help="Folder of the data set.")]
ValOption = Annotated[
    float, typer.Option("--val-fraction", min=0, max=0.9, help="Fraction of the materials for validation.")
]
DrawOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the division into training and validation.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="YAML file of FEFF settings that differ from the defaults.")
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Number of processes. [default: number of cores]")
]
StructuresArgument = Annotated[
    Path, typer.Argument(help="Structures: a CIF, POSCAR or pymatgen JSON file, or a folder of them.")
]


@dataset_app.command("label")
def dataset_label(
    structures: StructuresArgument,
    absorber: AbsorberOption,
    name: NameOption,
    out: WhereOption = Path("data"),
    val_fraction: ValOption = 0.15,
    seed: DrawOption = 0,
    jobs: JobsOption = None,
) -> None:
    """Compute the descriptors of the absorber's distinct sites and write NAME.csv."""
    from ..jobs.dataset import label_structures

    with exit_on_error():
        typer.echo(label_structures(structures, absorber, name, out, val_fraction=val_fraction, seed=seed, jobs=jobs))


@dataset_app.command("feff")
def dataset_feff(
    structures: Annotated[Path, typer.Argument(help="Structures as for label, or a queue of jobs.")],
    absorber: Annotated[
        str | None,
        typer.Option("--absorber", help="Symbol of the absorber, e.g. Co. [default: from the jobs of a queue]"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs, with one folder per site.")] = Path("runs"),
    config: ConfigOption = None,
    feff: Annotated[str | None, typer.Option("--feff", help="Program of FEFF. [default: feff on the PATH]")] = None,
    write_only: Annotated[bool, typer.Option("--write-only", help="Write the inputs without running FEFF.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Repeat the runs whose attempts have all failed.")] = False,
    jobs: JobsOption = None,
) -> None:
    """Write FEFF's input for the absorber's distinct sites and run FEFF; finished runs are not repeated."""
    from ..jobs.dataset import compute

    with exit_on_error():
        summary = compute(
            structures, absorber, out, config=config, program=feff, write_only=write_only, again=again, jobs=jobs
        )
        typer.echo(summary)


@dataset_app.command("disorder")
def dataset_disorder(
    structures: StructuresArgument,
    absorber: AbsorberOption,
    out: Annotated[Path, typer.Option("--out", help="Queue of jobs for dataset feff, .jsonl or .jsonl.gz.")] = Path(
        "jobs.jsonl"
    ),
    rattle: Annotated[
        list[float] | None,
        typer.Option(
            "--rattle", min=0.001, max=1, help="Standard deviation of displacements per axis, Å. Repeatable."
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, help="Rattled structures per crystal and amplitude, one site of each.")
    ] = 10,
    quench: Annotated[
        int, typer.Option("--quench", min=0, help="Amorphous structures per composition, quenched from the melt.")
    ] = 0,
    quench_sites: Annotated[int, typer.Option("--quench-sites", min=1, help="Sites of each quenched structure.")] = 8,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file of melt and quench that differ from the defaults.")
    ] = None,
    val_fraction: ValOption = 0.15,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of all random numbers.")] = 0,
    jobs: JobsOption = None,
) -> None:
    """Rattle crystals, or melt and quench them, and write the sites as a queue for dataset feff.

    Each structure is a material of its own, on one side of the split.
    """
    from ..jobs.disorder import make_disordered

    with exit_on_error():
        summary = make_disordered(
            structures,
            absorber,
            out,
            amplitudes_a=tuple(rattle or ()),
            count=count,
            quenches=quench,
            quench_sites=quench_sites,
            config=config,
            val_fraction=val_fraction,
            seed=seed,
            jobs=jobs,
        )
        typer.echo(summary)


@dataset_app.command("state")
def dataset_state(
    runs: Annotated[Path, typer.Argument(help="Folder of FEFF runs.")] = Path("runs"), config: ConfigOption = None
) -> None:
    """Print the number of finished, failed and waiting sites of each absorber, with the reasons of failures."""
    from ..jobs.dataset import state

    with exit_on_error():
        typer.echo(state(runs, config=config))


@dataset_app.command("collect")
def dataset_collect(
    runs: Annotated[Path, typer.Argument(help="Folder of FEFF runs.")],
    name: NameOption,
    absorber: Annotated[
        str | None, typer.Option("--absorber", help="Symbol of the absorber, e.g. Co, if the runs have several.")
    ] = None,
    out: WhereOption = Path("data"),
    val_fraction: ValOption = 0.15,
    seed: DrawOption = 0,
    jobs: JobsOption = None,
) -> None:
    """Collect the spectra and descriptors of FEFF runs in NAME.npz and NAME.csv, for training."""
    from ..jobs.dataset import collect_runs

    with exit_on_error():
        typer.echo(collect_runs(runs, absorber, name, out, val_fraction=val_fraction, seed=seed, jobs=jobs))


@dataset_app.command("append")
def dataset_append(
    sources: Annotated[list[Path], typer.Argument(help="Folders of FEFF runs, and .npz files of data sets.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the data sets, one per absorber.")] = Path(
        "data/feff"
    ),
    least: Annotated[int, typer.Option("--least", min=1, help="Least number of new rows for a shard.")] = 1,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Set to add the rows to, e.g. ti_k_disordered. [default: a shard, for merge]"),
    ] = None,
    jobs: JobsOption = None,
) -> None:
    """Write the rows that the data sets do not have yet as a shard; those without a split are left out."""
    from ..jobs.shards import append_rows

    with exit_on_error():
        typer.echo(append_rows(sources, out, least=least, jobs=jobs, name=name))


FolderArgument = Annotated[Path, typer.Argument(help="Folder of the data sets, one per absorber.")]


@dataset_app.command("merge")
def dataset_merge(folder: FolderArgument = Path("data/feff")) -> None:
    """Merge the shards into the data sets, one per absorber; broken and repeated rows are left out and counted."""
    from ..jobs.shards import merge_shards

    with exit_on_error():
        typer.echo(merge_shards(folder))


@dataset_app.command("tables")
def dataset_tables(folder: FolderArgument = Path("data/feff")) -> None:
    """Print the number of rows of each absorber by split, and the labels of their descriptors, in Markdown."""
    from ..jobs.shards import tables_of

    with exit_on_error():
        typer.echo(tables_of(folder))


@dataset_app.command("omnixas")
def dataset_omnixas(
    folder: Annotated[Path, typer.Argument(help="Folder tutorial_omnixas of OmniXAS's repository.")],
    absorber: AbsorberOption,
    structures: Annotated[
        Path, typer.Option("--structures", help="Structures named by their Materials Project ids: a file or folder.")
    ],
    name: NameOption,
    out: WhereOption = Path("data"),
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="Part of OmniXAS's split: train, val or test. Repeatable. [default: train, val]"),
    ] = None,
    jobs: JobsOption = None,
) -> None:
    """Import published rows of OmniXAS, with descriptors, to NAME.npz and NAME.csv; the split is OmniXAS's."""
    from ..jobs.dataset import import_omnixas

    with exit_on_error():
        parts = part or ["train", "val"]
        typer.echo(import_omnixas(folder, absorber, structures, name, out, parts=parts, jobs=jobs))


@dataset_app.command("mp")
def dataset_mp(
    documents: Annotated[list[Path], typer.Argument(help="JSON files of XAS documents from mp-api.")],
    absorber: AbsorberOption,
    name: NameOption,
    out: WhereOption = Path("data"),
    val_fraction: ValOption = 0.15,
    seed: DrawOption = 0,
    jobs: JobsOption = None,
) -> None:
    """Convert K-edge XANES of the Materials Project, with descriptors, to NAME.npz and NAME.csv, for training."""
    from ..jobs.dataset import convert_documents

    with exit_on_error():
        typer.echo(convert_documents(documents, absorber, name, out, val_fraction=val_fraction, seed=seed, jobs=jobs))
