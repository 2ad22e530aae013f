"""``xas-agent calibrate``: how measurements differ from FEFF, from standards."""

from pathlib import Path
from typing import Annotated

import typer

from .shared import told


def calibrate(
    standards: Annotated[list[str], typer.Argument(help="Each FILE=ROW[,metal][,bond=Å].", metavar="STANDARDS...")],
    feff: Annotated[Path, typer.Option(help="npz of FEFF rows with their counterparts.")],
    model: Annotated[str, typer.Option("--model", help="Model whose grid and edge to use.")],
    metal_gap: Annotated[
        float | None, typer.Option(help="eV by which a metal's offset exceeds its oxides', if there is no oxide.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the result to the model's card.")] = False,
    picture: Annotated[Path | None, typer.Option(help="PNG of the standards on their counterparts.")] = None,
) -> None:
    """Find how measurements differ from FEFF: energy offset and scale, amplitude and broadening, from standards.

    A standard is a measured spectrum and the id of its FEFF counterpart, such as NiO.xdi=NiO_Ni000; "metal" says that
    it is the foil itself, "bond" its known bond length, where FEFF's structure has another.
    """
    with told():
        from ...agent.spectra import AlignmentSettings
        from ..jobs.calibrate import calibrate_model, write_calibration

        found = calibrate_model(model, standards, feff, AlignmentSettings(), metal_gap)
        typer.echo(found)
        if found.unrehearsed:
            typer.echo(f"training did not go so far, train anew: {'; '.join(found.unrehearsed)}", err=True)
        if picture:
            from ..output.figures import draw_standards

            draw_standards(picture, found.fits, found.card.grid.grid())
            typer.echo(picture)
        if write:
            typer.echo(write_calibration(found, model))
