"""``xas-agent calibrate``: the differences between measurement and FEFF, from standards."""

from pathlib import Path
from typing import Annotated

import typer

from .options import ConfigOption
from .shared import exit_on_error, settings_of


def calibrate(
    standards: Annotated[
        list[str],
        typer.Argument(
            help="Measured standards, each FILE=ROW[,metal][,bond=LENGTH][,shift=EV][,reference=COLUMN].",
            metavar="STANDARDS...",
        ),
    ],
    feff: Annotated[
        list[Path], typer.Option(help="npz of FEFF spectra that contains the counterparts; may be repeated.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Model whose grid and edge are used, by name or folder, e.g. ni-k, or file of a training config.",
        ),
    ],
    metal_gap: Annotated[
        float | None,
        typer.Option(
            help="Excess of a metal's energy offset over that of its oxides, eV, if all standards are metals."
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Known energy scale, such as that of other elements. [default: fitted to the standards]"),
    ] = None,
    config: ConfigOption = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the result to the model's card; otherwise only print it.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="File for a figure of the standards and their counterparts, .png. [default: not written]"),
    ] = None,
) -> None:
    """Determine energy offset, energy scale, amplitude and broadening between measurement and FEFF from standards.

    A standard is a measured spectrum and the id of its FEFF counterpart. If the compound has several sites, the
    counterpart is the mean of their rows, with their multiplicities: "ROW+2*ROW". "metal" marks a metal foil. "bond"
    is the known bond length in Å, if FEFF's structure has another one. "shift" is added to the measured energies.
    "reference" names the column of a foil that the file does not state.
    """
    with exit_on_error():
        from ..jobs.calibrate import calibrate_model, folder_to_write, write_calibration
        from ..output.tables import print_table

        folder = folder_to_write(model) if write else None
        calibration = calibrate_model(model, standards, feff, settings_of(config).alignment, metal_gap, scale)
        header, *fits = calibration.table
        print_table(header, fits)
        typer.echo(f"\n{calibration}")
        if calibration.uncovered:
            typer.echo(f"train again, the training does not cover: {'; '.join(calibration.uncovered)}", err=True)
        if picture:
            from ..output.figures import draw_standards

            draw_standards(picture, calibration.fits)
            typer.echo(picture)
        if folder:
            typer.echo(write_calibration(calibration, folder))
