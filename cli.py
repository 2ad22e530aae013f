"""The ``xas-agent`` command: parses, builds, calls. Heavy imports wait until a command needs them."""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from . import __version__
from .app.commands.dataset import dataset_app
from .app.commands.models import models_app
from .app.commands.shared import (
    SET_ASIDE,
    USAGE,
    columns_of,
    conclude,
    fail,
    log_from,
    refuse_idle,
    settings_of,
    told,
    validated,
)

app = typer.Typer(
    help="Understands X-ray absorption data while the experiment runs, and acts on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models_app, name="models")
app.add_typer(dataset_app, name="dataset")

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
PLANNED = 80  # frames that the embedded beamline spreads its charge over
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of everything random in the simulated beamline.")]
DataOption = Annotated[Path, typer.Option("--data", help="Folder with the FEFF rows, NAME.npz and NAME.csv.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    log_from(log_level)


@app.command()
def run(
    config: ConfigOption = None,
    frames: FramesOption = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of everything random in the embedded beamline. [default: 0]")
    ] = None,
    out: OutOption = None,
    source: SourceOption = None,
    publish: Annotated[str | None, typer.Option(help="zmq://HOST:PORT, a bluesky proxy's in-port.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Watch the files of this folder, and what comes.")] = None,
    column: ColumnOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    connect_timeout: Annotated[float | None, typer.Option(min=0, help="s; 0 waits for ever. [default: 10]")] = None,
    preset: PresetOption = None,
    strict: StrictOption = False,
) -> None:
    """Watch an experiment and act on it.

    Without --source (and none in the config) or --folder the embedded beamline charges a LixCoO2 cathode in a
    process of its own, and the agent stops it at x = 0.50.
    """
    from .app.session import Session, embedded, terminate_like_ctrl_c

    with told():
        if folder and source:
            fail("--folder and --source: expected one of them", USAGE)
        config = config or (None if source or folder else "default")
        settings = settings_of(config, model, element, edge, source, publish, connect_timeout, preset=preset)
        listens = settings.source is not None or settings.tiled is not None
        if folder and listens:
            fail(f"--folder and the source of {config}: expected one of them", USAGE)
        if folder and out and out.resolve() == folder.resolve():
            fail("--out: found the watched folder, expected another: its tables would be read", USAGE)
        if not listens:
            refuse_idle("without a source of a beamline's documents", preset=settings.preset)
        if not listens and settings.publish is None:
            refuse_idle("where nothing is connected to", connect_timeout=connect_timeout)
        if folder or listens:
            refuse_idle("without the embedded beamline", seed=seed)
        if not folder:
            refuse_idle("without --folder", column=column or None)
        terminate_like_ctrl_c()
        if folder is not None:
            from .adapters.files.folder import FolderSource

            files = FolderSource(folder, columns=columns_of(column), element=element, edge=edge)
            with closing(files), Session(settings, out, limit=frames) as session:
                session.watch(files)
        elif settings.source is None and settings.tiled is None:
            session = embedded(settings, seed or 0, max(PLANNED, frames or 0), out or Path("out"), limit=frames)
        else:
            from .app.session import source_of

            documents = source_of(settings)
            documents.connect()  # first, so that nothing published while the models load is lost
            with closing(documents), Session(settings, out, limit=frames) as session:
                session.watch(documents)
    conclude(session, strict)


@app.command()
def replay(
    recording: Annotated[Path, typer.Argument(help="Folder with spectra.npz and series.csv, or a documents file.")],
    speed: Annotated[str, typer.Option(help="How many times as fast as recorded, or max.")] = "max",
    config: ConfigOption = None,
    out: OutOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    noise: Annotated[float, typer.Option(min=0, help="σ of noise added to a folder's spectra.")] = 0.0,
    seed: SeedOption = 0,
    strict: StrictOption = False,
) -> None:
    """Measure a recorded scan again with simulated devices, and watch it."""
    from .adapters.files.documents import FileSource
    from .app.output.recorder import Truth
    from .app.session import Obeying, Session, terminate_like_ctrl_c
    from .sim_beamline.replay import Replay

    with told():
        if not recording.is_dir():
            refuse_idle("with documents, which are replayed as they are", noise=noise or None)
        settings = settings_of(config, model, element, edge)
        truth = Truth()
        taken: list[Callable[[str, dict[str, Any]], None]] = []
        again = Replay(
            recording if recording.is_dir() or not recording.exists() else FileSource(recording),
            _speed(speed),
            [lambda name, doc: taken[0](name, doc)],
            [truth],
            element=element,
            edge=edge,
            noise=noise,
            seed=seed,
        )
        terminate_like_ctrl_c()
        with Session(settings, out, Obeying(again.obey), planned=len(again), truth=truth) as session:
            taken.append(session.agent)
            session.follow(again.run)
    conclude(session, strict)


@app.command()
def sim(
    publish: Annotated[str, typer.Option(help="Where to publish; port 0 takes a free one.")] = "zmq://127.0.0.1:5577",
    connect: Annotated[
        bool, typer.Option("--connect", help="Connect (to a proxy's in-port) instead of binding.")
    ] = False,
    control: Annotated[str, typer.Option(help="Where to take orders.")] = "zmq://127.0.0.1:5579",
    seed: SeedOption = 0,
    frames: Annotated[int, typer.Option(min=1, help="Spectra planned.")] = 80,
    mode: Annotated[str, typer.Option(help="fly (an Event per spectrum) or step (an Event per energy).")] = "fly",
    period: Annotated[float, typer.Option(min=0, help="Wall time per frame, s.")] = 0.4,
    truth: Annotated[Path | None, typer.Option(help="File for what the agent must not know (.jsonl).")] = None,
    wait: Annotated[float, typer.Option(min=0, help="s to wait for a subscriber; 0 waits for ever.")] = 60.0,
) -> None:
    """Run the simulated beamline alone: a LixCoO2 cathode charged in the beam, publishing documents.

    Prints one line of JSON with its endpoints, then waits for a subscriber before the first document.
    """
    import json

    from .adapters.errors import EndpointUnreachable
    from .adapters.files.documents import FileSink
    from .adapters.zmq.control import ControlServer
    from .adapters.zmq.documents import ZMQEndpoint, ZMQSink
    from .app.session import terminate_like_ctrl_c
    from .sim_beamline.beamline import BeamlineSettings, SimBeamline

    with told():
        chosen: dict[str, Any] = {"seed": seed, "frames": frames, "mode": mode, "frame_period_s": period}
        settings = validated(BeamlineSettings, chosen, "sim")
        endpoint = validated(ZMQEndpoint, {"address": publish, "bind": not connect}, "--publish")
        sink = ZMQSink(endpoint)
        known = FileSink(truth) if truth else None
        beamline = SimBeamline(settings, [sink], [known] if known else [])
        terminate_like_ctrl_c()
        server = ControlServer(control, beamline.obey)
        try:
            sink.connect()
            typer.echo(json.dumps({"documents": _zmq(sink.address), "control": _zmq(server.address)}))
            sys.stdout.flush()
            if not sink.wait_for_subscriber(wait or None):
                raise EndpointUnreachable(sink.address, f"nobody subscribed within {wait:g} s")
            beamline.run()
        except KeyboardInterrupt:
            pass
        finally:
            server.close()
            sink.close()
            if known is not None:
                known.close()


@app.command()
def infer(
    files: Annotated[list[Path], typer.Argument(help="Files of spectra: docs/reference/files.md.")],
    column: ColumnOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    theory: Annotated[bool, typer.Option("--theory", help="Already on FEFF's energies and normalisation.")] = False,
    form: Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="table, json or csv.")] = "table",
    everything: Annotated[bool, typer.Option("--all", help="PSGO and CN2 of measured spectra too.")] = False,
    config: ConfigOption = None,
    strict: StrictOption = False,
) -> None:
    """Estimate the descriptors of spectra in files."""
    from .app.jobs.infer import infer_files, render

    with told():
        settings = settings_of(config, model, element, edge, single_site=everything)
        answers = infer_files(files, settings, theory=theory, columns=columns_of(column))
        render(answers, form)
    if strict and any("set_aside" in a for a in answers):
        raise typer.Exit(SET_ASIDE)


@app.command()
def align(
    files: Annotated[list[Path], typer.Argument(help="Files of spectra: docs/reference/files.md.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for spectra, alignment.csv and pictures.")],
    column: ColumnOption = None,
    model: ModelOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    form: Annotated[
        Literal["npz", "csv", "xdi"], typer.Option("--format", help="One npz per model; csv or xdi per spectrum.")
    ] = "npz",
    pictures: Annotated[bool, typer.Option(help="Draw each spectrum.")] = True,
    config: ConfigOption = None,
    strict: StrictOption = False,
) -> None:
    """Put spectra on a model's grid, and draw how: raw μ with its lines, E0, the normalised curve."""
    from .app.jobs.align import align_files, draw_all, write_aligned

    with told():
        settings = settings_of(config, model, element, edge)
        found = align_files(files, settings, columns_of(column))
        written = write_aligned(found, out, form)
        if pictures:
            written += draw_all(found, out)
    for f in found:
        what = f"set aside: {f.set_aside}" if f.set_aside else ", ".join(f.flags) or "aligned"
        typer.echo(f"{f.spectrum.id}: {what}")
    typer.echo(f"{len(written)} files and alignment.csv in {out}/")
    if strict and any(f.set_aside for f in found):
        raise typer.Exit(SET_ASIDE)


@app.command()
def convert(
    files: Annotated[list[Path], typer.Argument(help="Files of spectra; with --watch one folder.")],
    out: Annotated[Path, typer.Option("--out", help="File of documents, .jsonl or .msgpack.")],
    column: ColumnOption = None,
    element: ElementOption = None,
    edge: EdgeOption = None,
    sample: Annotated[str | None, typer.Option(help="Sample; else from the files.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with what comes into the folder.")] = False,
    strict: StrictOption = False,
) -> None:
    """Turn files of spectra into Bluesky documents: XDI, text columns, SSRL, SPEC, Athena, NeXus and HDF5, npz."""
    from .adapters.files import conversion, folder
    from .app.session import terminate_like_ctrl_c

    with told():
        columns = columns_of(column)
        if watch and len(files) != 1:
            fail(f"--watch: found {len(files)} paths, expected one folder", USAGE)
        if not watch and (folders := [str(path) for path in files if path.is_dir()]):
            fail(f"{folders[0]}: found a folder, expected files; --watch goes on with what comes into one", USAGE)
        terminate_like_ctrl_c()
        found = folder.watch(files[0], columns=columns) if watch else conversion.read_all(files, columns)
        done = conversion.convert(found, out, element=element, edge=edge, sample=sample)
    for line in (*done.notes, *(f"will be set aside: {flaw}" for flaw in done.flaws)):
        typer.echo(line, err=True)
    typer.echo(f"{out}: {done.spectra} spectra of {done.files} files in {done.runs} runs")
    if strict and done.flaws:
        raise typer.Exit(SET_ASIDE)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="Training config, e.g. configs/training/cu-k.yaml.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Where the model folder is written.")] = Path("trained"),
    jobs: Annotated[int | None, typer.Option(min=1, help="Members trained at a time. [default: cores]")] = None,
) -> None:
    """Train a model from FEFF rows and write its folder."""
    from .app.jobs.infer import train_model

    with told():
        typer.echo(train_model(config, data, out, jobs))


@app.command()
def evaluate(
    data: DataOption,
    model: Annotated[str, typer.Argument(help="Model name or folder.")] = "cu-k",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the report. [default: MODEL-report]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The shipped model and forests only: minutes.")] = False,
    config: Annotated[str, typer.Option("--config", help="full, quick or a YAML file.")] = "full",
    only: Annotated[list[str] | None, typer.Option("--only", help="One study; may be repeated.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Trainings at a time. [default: cores]")] = None,
    split: Annotated[str | None, typer.Option(help="Only print figures on the rows of this split.")] = None,
    dataset: Annotated[str | None, typer.Option(help="NAME of the data; else the one trained on.")] = None,
) -> None:
    """Judge a model and write a report: competitors, robustness, transfer, calibration, what it looks at.

    Long trainings are kept in the report folder: stopped, the same command goes on where it was.
    """
    with told():
        other = None if config == "full" else config
        if quick:
            refuse_idle("with --quick", config=other)
        if split or dataset:
            idle = {"out": out, "quick": quick or None, "config": other, "only": only or None, "jobs": jobs}
            refuse_idle("with --split or --dataset", **idle)
            from .app.jobs.infer import evaluate_model

            return evaluate_model(model, data, split or "val", dataset)
        from .app.jobs.evaluate import report_on

        folder = out or Path(f"{Path(model).name}-report")
        typer.echo(report_on(model, data, folder, "quick" if quick else config, only or (), jobs))


@app.command()
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
        from .agent.spectra.align import AlignmentSettings
        from .app.jobs.calibrate import calibrate_model, write_calibration

        found = calibrate_model(model, standards, feff, AlignmentSettings(), metal_gap)
        typer.echo(found)
        if found.unrehearsed:
            typer.echo(f"training did not go so far, train anew: {'; '.join(found.unrehearsed)}", err=True)
        if picture:
            from .app.output.figures import draw_standards

            draw_standards(picture, found.fits, found.card.grid.grid())
            typer.echo(picture)
        if write:
            typer.echo(write_calibration(found, model))


def main() -> None:
    """Entry point."""
    app()


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        return float(text.removesuffix("×").removesuffix("x"))
    except ValueError:
        fail(f"--speed {text}: expected a number or max", USAGE)


def _zmq(address: str) -> str:
    return address.replace("tcp://", "zmq://")


if __name__ == "__main__":
    main()
