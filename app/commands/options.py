"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[str | None, typer.Option("--config", help="YAML file, or the name of a shipped config.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder for documents, tables, summary and picture.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Model name or folder.")]
ElementOption = Annotated[str | None, typer.Option(help="Absorber, e.g. Ni; else from the documents or energies.")]
EdgeOption = Annotated[str | None, typer.Option(help="Edge, e.g. K.")]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="ROLE=NAME of a file's columns, e.g. energy=mono or if=4,5; may be repeated."),
]
SourceOption = Annotated[
    str | None, typer.Option(help="zmq://HOST:PORT, a bluesky proxy's out-port, or tiled://HOST:PORT/PATH.")
]
PresetOption = Annotated[str | None, typer.Option("--preset", help="Beamline whose rules hold, e.g. bmm.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit 4 when frames were set aside.")]
FramesOption = Annotated[int | None, typer.Option("--frames", min=1, help="End after this many frames.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of everything random in the simulated beamline.")]
DataOption = Annotated[Path, typer.Option("--data", help="Folder with the FEFF rows, NAME.npz and NAME.csv.")]
