"""Options of several commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

_PACKAGE = Path(__file__).parents[2]


def installed_models(incomplete: str) -> list[str]:
    """Return the installed models, for a shell to complete."""
    return _names("models/shipped/*/card.yaml", incomplete, lambda path: path.parent.name)


def _configs(incomplete: str) -> list[str]:
    files = _names("configs/*.yaml", incomplete, lambda path: path.stem)
    return files + _names("configs/stories/*.yaml", incomplete, lambda path: f"stories/{path.stem}")


def _presets(incomplete: str) -> list[str]:
    return _names("configs/beamlines/*.yaml", incomplete, lambda path: path.stem)


def _names(pattern: str, incomplete: str, name: Callable[[Path], str]) -> list[str]:
    """Return the names of shipped files; nothing is imported, since a person waits at the Tab key."""
    return sorted(found for path in _PACKAGE.glob(pattern) if (found := name(path)).startswith(incomplete))


FilesArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Files, folders or patterns: XDI, text columns, SSRL, SPEC, Athena, NeXus, HDF5, npz or Parquet.",
        readable=False,  # not checked here, where one file without permission would stop the others
    ),
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="Settings: a YAML file, or the name of a shipped config such as default.",
        autocompletion=_configs,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for documents, tables, summary and figure: new, or that of the same run command, which goes on.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Model by name or folder, e.g. ni-k. [default: by element, edge and energies]",
        autocompletion=installed_models,
    ),
]
ElementOption = Annotated[
    str | None, typer.Option(help="Symbol of the absorber, e.g. Ni. [default: from the metadata or the energies]")
]
EdgeOption = Annotated[
    str | None, typer.Option(help="Absorption edge, e.g. K. [default: from the metadata or the energies]")
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="Column of a file by role, as ROLE=NAME or ROLE=NUMBER, e.g. energy=mono or if=4,5. For angles: "
        "energy=theta, and d_spacing=3.1356, that of the crystal in Å. Repeatable.",
    ),
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        help="Source of documents: zmq://HOST:PORT of a bluesky proxy's out-port, tiled://HOST:PORT/PATH, or for run "
        "nats://HOST:PORT/SUBJECT, kafka://HOST:PORT/TOPIC or a file of documents (.jsonl or .msgpack)."
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset", help="Preset of a beamline, e.g. bmm, for the fields of its documents.", autocompletion=_presets
    ),
]
HealthOption = Annotated[
    str | None,
    typer.Option(
        "--health",
        metavar="HOST:PORT",
        help="Serve /healthz, /readyz and /metrics (Prometheus) over HTTP here; port 0 selects a free port.",
    ),
]
HealthRemoteOption = Annotated[
    bool, typer.Option("--health-remote", help="Let --health use an address that other machines reach.")
]
DashboardOption = Annotated[
    str | None,
    typer.Option(
        "--dashboard",
        metavar="[HOST:PORT]",
        help="Show the session in a browser, at 127.0.0.1:8642 or the next free port, or at this address. It needs "
        "--out.",
    ),
]
NoDashboardOption = Annotated[bool, typer.Option("--no-dashboard", help="Without --dashboard, as by default.")]
ConnectTimeoutOption = Annotated[
    float | None,
    typer.Option(min=0, help="Longest wait for an endpoint, s; 0 waits without limit. [default: 10]"),
]
SocketOption = Annotated[
    Path | None,
    typer.Option(
        "--socket", envvar="XAS_AGENT_SOCKET", help="Unix socket of xas-agent serve, which answers at once."
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Exit with 4 if spectra are set aside or files refused.")
]
FramesOption = Annotated[
    int | None,
    typer.Option(
        "--frames",
        min=1,
        help="End after this number of frames, answered or set aside; further ones are left. [default: no limit]",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the simulated noise and sample.")]
DataOption = Annotated[Path, typer.Option("--data", help="Folder of the FEFF data sets, each NAME.npz and NAME.csv.")]
CurveKeyOption = Annotated[
    Path | None,
    typer.Option("--curve-key", help="Secret CURVE certificate of this side, a file of xas-agent keys make."),
]
CurveServerKeyOption = Annotated[
    Path | None,
    typer.Option("--curve-server-key", help="Public CURVE certificate of the side to which this one connects."),
]
CurveClientsOption = Annotated[
    Path | None,
    typer.Option("--curve-clients", help="Folder of the certificates of clients that may connect to this side."),
]
ControlSecretOption = Annotated[
    Path | None,
    typer.Option(
        "--control-secret",
        help="File with the secret that both sides of a control share, mode 0600. "
        "[default: the variable XAS_AGENT_CONTROL_SECRET]",
    ),
]
