"""The ``xas-agent dataset`` commands: training data from structures, FEFF and the Materials Project."""

from pathlib import Path
from typing import Annotated

import typer

from .shared import told

dataset_app = typer.Typer(help="Training data from structures, FEFF and the Materials Project.", no_args_is_help=True)

AbsorberOption = Annotated[str, typer.Option("--absorber", help="Absorbing element, e.g. Co.")]
NameOption = Annotated[str, typer.Option("--name", help="NAME of the data set.")]
WhereOption = Annotated[Path, typer.Option("--out", help="Where the data set is written.")]
ValOption = Annotated[float, typer.Option("--val-fraction", min=0, max=0.9, help="Share of materials that validate.")]
DrawOption = Annotated[int, typer.Option("--seed", min=0, help="Of the split by material.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML with other FEFF settings.")]
JobsOption = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes. [default: cores]")]
StructuresArgument = Annotated[
    Path, typer.Argument(help="CIF, POSCAR or pymatgen JSON: a file, or a folder of them.")
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
    """Descriptors of the absorber's distinct sites, as NAME.csv."""
    from ..jobs.dataset import label_structures

    with told():
        typer.echo(label_structures(structures, absorber, name, out, val_fraction=val_fraction, seed=seed, jobs=jobs))


@dataset_app.command("feff")
def dataset_feff(
    structures: Annotated[
        Path, typer.Argument(help="CIF, POSCAR or pymatgen JSON, a file or a folder of them; or a queue of jobs.")
    ],
    absorber: Annotated[
        str | None, typer.Option("--absorber", help="Absorbing element. [default: each job's]")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs, one folder a site.")] = Path("runs"),
    config: ConfigOption = None,
    feff: Annotated[str | None, typer.Option("--feff", help="FEFF's program. [default: feff on the PATH]")] = None,
    write_only: Annotated[bool, typer.Option("--write-only", help="Write the inputs, run nothing.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Run too where every attempt failed before.")] = False,
    jobs: JobsOption = None,
) -> None:
    """Write FEFF's input for the absorber's distinct sites and run FEFF, where it has not run yet."""
    from ..jobs.dataset import compute

    with told():
        done = compute(
            structures, absorber, out, config=config, program=feff, write_only=write_only, again=again, jobs=jobs
        )
        typer.echo(done)


@dataset_app.command("state")
def dataset_state(
    runs: Annotated[Path, typer.Argument(help="Folder of FEFF runs.")] = Path("runs"), config: ConfigOption = None
) -> None:
    """How many sites of each absorber are done, failed and waiting, and why they failed."""
    from ..jobs.dataset import state

    with told():
        typer.echo(state(runs, config=config))


@dataset_app.command("collect")
def dataset_collect(
    runs: Annotated[Path, typer.Argument(help="Folder of FEFF runs.")],
    name: NameOption,
    absorber: Annotated[str | None, typer.Option("--absorber", help="Where there are runs of several.")] = None,
    out: WhereOption = Path("data"),
    val_fraction: ValOption = 0.15,
    seed: DrawOption = 0,
    jobs: JobsOption = None,
) -> None:
    """Spectra and descriptors of FEFF runs, as NAME.npz and NAME.csv to train from."""
    from ..jobs.dataset import collect_runs

    with told():
        typer.echo(collect_runs(runs, absorber, name, out, val_fraction=val_fraction, seed=seed, jobs=jobs))


@dataset_app.command("mp")
def dataset_mp(
    documents: Annotated[list[Path], typer.Argument(help="JSON of XAS documents from mp-api.")],
    absorber: AbsorberOption,
    name: NameOption,
    out: WhereOption = Path("data"),
    val_fraction: ValOption = 0.15,
    seed: DrawOption = 0,
    jobs: JobsOption = None,
) -> None:
    """K-edge XANES of the Materials Project and their descriptors, as NAME.npz and NAME.csv to train from."""
    from ..jobs.dataset import convert_documents

    with told():
        typer.echo(convert_documents(documents, absorber, name, out, val_fraction=val_fraction, seed=seed, jobs=jobs))
