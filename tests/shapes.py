"""Short recordings of the simulated cathode in the form of real beamlines' documents, with their true spectra.

Each function writes the files of its documents into a folder and returns a Recording, with which presets are tested
without a beamline. The forms follow the beamlines' public profile collections (see ``docs/reference/beamlines.md``);
they were not recorded at the beamlines.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import event_model
import numpy as np

from xas_agent.agent.fields.monochromator import Bragg
from xas_agent.agent.types import Array, Direction, Document

Mode = Literal["transmission", "fluorescence"]

EDGE_EV = 7709.0
AXIS = EDGE_EV + np.concatenate([np.arange(-60, -20, 4.0), np.arange(-20, 40, 0.7), np.arange(40, 105, 2.0)])
"""Energies of a step scan, eV."""
SI111 = Bragg(d_spacing_ang=3.1356)
BEGIN_S = 1.7e9
"""Unix seconds at which every recording begins."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The true spectrum of one frame."""

    energy: Array
    """(M,) eV, rising."""
    mu: Array
    """(M,) ln(I0/It) in transmission, If/I0 in fluorescence."""
    direction: Direction
    reference: Array | None = None
    """(M,) ln(It/Iref)."""


@dataclass(slots=True)
class Recording:
    """The documents of one or more runs, and their sweeps in order."""

    documents: list[Document] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)


class _Run:
    """Appends the documents of one run to a recording, one second apart."""

    def __init__(self, recording: Recording, **metadata: Any) -> None:
        self._documents = recording.documents
        self.time = BEGIN_S + len(recording.documents)
        self._composed: Any = event_model.compose_run(time=self.time, metadata=metadata)
        self.uid: str = self._composed.start_doc["uid"]
        self.announced: dict[str, int] = {}
        self.add("start", self._composed.start_doc)

    def add(self, name: str, doc: Any) -> None:
        self.time += 1.0
        self._documents.append((name, dict(doc)))

    def stream(self, name: str, **keys: Mapping[str, Any]) -> Any:
        made = self._composed.compose_descriptor(name=name, data_keys=keys, time=self.time)  # type: ignore[arg-type]
        self.add("descriptor", made.descriptor_doc)
        return made

    def event(self, stream: Any, data: Mapping[str, Any], time: float | None = None) -> None:
        at = self.time if time is None else time
        external = [k for k in data if stream.descriptor_doc["data_keys"][k].get("external")]
        filled = dict.fromkeys(external, False)
        times = dict.fromkeys(data, at)
        self.add("event", stream.compose_event(data=dict(data), timestamps=times, time=at, filled=filled))

    def resource(self, spec: str, path: Path, **kwargs: Any) -> Callable[..., str]:
        """Announce a file; return a function that announces a datum in it and returns its id."""
        made = self._composed.compose_resource(
            spec=spec, root="/", resource_path=str(path)[1:], resource_kwargs=kwargs, validate=False
        )
        self.add("resource", made.resource_doc)

        def datum(**kwargs: Any) -> str:
            doc = made.compose_datum(kwargs)
            self.add("datum", doc)
            return doc["datum_id"]

        return datum

    def hdf5(self, path: Path, key: str, dataset: str, stream: Any) -> Callable[[int, int], None]:
        """Announce a dataset as a StreamResource; return a function that announces rows of it."""
        uri = f"file://localhost{path}"
        parameters = {"dataset": dataset, "chunk_shape": (64,)}
        made = self._composed.compose_stream_resource(
            mimetype="application/x-hdf5", uri=uri, data_key=key, parameters=parameters
        )
        self.add("stream_resource", made.stream_resource_doc)
        name = stream.descriptor_doc["name"]

        def rows(start: int, stop: int) -> None:
            seq_nums = {"start": start + 1, "stop": stop + 1}
            indices = {"start": start, "stop": stop}
            self.add("stream_datum", made.compose_stream_datum(indices, seq_nums, stream.descriptor_doc))  # type: ignore[arg-type]
            self.announced[name] = max(stop, self.announced.get(name, 0))

        return rows

    def stop(self) -> None:
        doc = self._composed.compose_stop(time=self.time)
        numbers = dict(doc.get("num_events", {}))
        for name, number in self.announced.items():
            numbers[name] = max(number, numbers.get(name, 0))
        self.add("stop", {**doc, "num_events": numbers})


NUMBER = {"source": "SIM", "dtype": "number", "shape": []}
EXTERNAL = {"source": "SIM", "dtype": "number", "shape": [1], "dtype_numpy": "<f8", "external": "STREAM:"}


def number(units: str = "") -> dict[str, Any]:
    """Return the data key of a scalar."""
    return {**NUMBER, "units": units}


def norm(energy: Array, x: float = 0.6) -> Array:
    """Return the cathode's normalised absorption, (M,), at energies in eV and lithium ``x``."""
    with files("xas_agent.sim_beamline").joinpath("cathode_co_k.npz").open("rb") as f, np.load(f) as z:
        row = int(np.argmin(np.abs(z["x"] - x)))
        grid, mu, offset = z["energy"], z["mu"].astype(float), float(z["feff_offset_ev"])
    return np.interp(energy + offset, grid, mu[row])


def currents(energy: Array, x: float = 0.6) -> dict[str, Array]:
    """Return I0, It, Ir and If, each (M,), without noise, so that frames can be compared with them."""
    spectrum = norm(energy, x)
    i0 = 1e-7 * (1.0 + 0.1 * np.sin(energy / 37.0))
    it = i0 * np.exp(-(0.4 + spectrum))
    return {"I0": i0, "It": it, "Ir": it * np.exp(-(0.3 + 0.8 * norm(energy + 1.0, 1.0))), "If": i0 * 0.03 * spectrum}


def sweep(energy: Array, mode: Mode = "transmission", x: float = 0.6, foil: bool = True) -> Sweep:
    """Return the true spectrum of a frame measured at ``energy``, (M,) in the order of acquisition."""
    rising = bool(energy[-1] > energy[0])
    e = energy if rising else energy[::-1]
    c = currents(e, x)
    mu = np.log(c["I0"] / c["It"]) if mode == "transmission" else c["If"] / c["I0"]
    return Sweep(e, mu, "rising" if rising else "falling", np.log(c["It"] / c["Ir"]) if foil else None)


def bmm(folder: Path, mode: Mode = "transmission", kind: str = "xafs", bothways: bool = False) -> Recording:
    """BMM: a run per repetition, metadata in 1-tuples, regions by element, spectra in an Xspress3 file."""
    import h5py

    recording = Recording()
    spectra = folder / "xs.hdf5"
    with h5py.File(spectra, "w") as file:
        file["entry/data/data"] = np.zeros((AXIS.size, 4, 16), dtype="u4")
    for k in range(2):
        energy = AXIS[::-1] if bothways and k else AXIS
        xdi = {
            "Element": {"symbol": "Co", "edge": "K"},
            "Scan": {"edge_energy": EDGE_EV},
            "Sample": {"name": "LCO"},
            "Mono": {"direction": "forward" if energy is AXIS else "backward"},
            "_mode": (mode,),
            "_kind": kind,
            "_dtc": ["Co1", "Co2", "Co3", "Co4"],
        }
        run = _Run(recording, plan_name=f"scan_nd {kind} {mode}", XDI=xdi, num_points=energy.size)
        keys: dict[str, Any] = {
            key: number() for key in ("I0", "It", "Ir", "dwti_dwell_time", "Co1", "Co2", "Co3", "Co4")
        }
        keys |= {key: number("eV") for key in ("dcm_energy", "dcm_energy_setpoint")}
        keys["4-element SDD_channel01"] = {"source": "x", "dtype": "array", "shape": [16], "external": "FILESTORE:"}
        baseline = run.stream("baseline", dcm_energy=number("eV"))
        primary = run.stream("primary", **keys)
        run.event(baseline, {"dcm_energy": energy[0]})
        datum = run.resource("XSP3", spectra)
        c = currents(energy)
        for i, e in enumerate(energy):
            parts = {
                f"Co{n}": c["If"][i] * share for n, share in zip((1, 2, 3, 4), (0.4, 0.3, 0.2, 0.1), strict=True)
            }
            data = {"I0": c["I0"][i], "It": c["It"][i], "Ir": c["Ir"][i], "dwti_dwell_time": 1.0, **parts}
            data |= {"dcm_energy": e, "dcm_energy_setpoint": e, "4-element SDD_channel01": datum(frame=i, channel=1)}
            run.event(primary, data)
        run.stop()
        recording.sweeps.append(sweep(energy, mode))
    return recording


def iss_step(folder: Path, experiment: str = "step_scan") -> Recording:
    """ISS step scan: averages of the electrometers' channels, ``e0`` a string."""
    recording = Recording()
    run = _Run(recording, plan_name="general_scan", experiment=experiment, element="Co", edge="K", e0="7709")
    names = {"apb_ave_ch1_mean": "I0", "apb_ave_ch2_mean": "It", "apb_ave_ch3_mean": "Ir", "apb_ave_ch4_mean": "If"}
    primary = run.stream("primary", hhm_energy=number("eV"), **{key: number() for key in names})
    c = currents(AXIS)
    for i, e in enumerate(AXIS):
        run.event(primary, {"hhm_energy": e, **{key: c[of][i] * 1e9 for key, of in names.items()}})
    run.stop()
    recording.sweeps.append(sweep(AXIS))
    return recording


def pizza_boxes(
    folder: Path, sweeps: int = 2, stream: str = "apb_stream", encoder: str = "pb9_enc1", experiment: str = "fly_scan"
) -> Recording:
    """ISS and QAS fly scans: sweeps up and down in one run, files of electrometers and encoder collected at the end.

    The electrometers' file repeats some of its rows and ends with the zeros of its buffer. The encoder counts
    negative angles in 24 bits and has a separate clock.
    """
    angle_offset, offset_mv = 0.35, 2.5
    gains = {"I0": 6.0, "It": 6.0, "Ir": 7.0, "If": 8.0}
    rate_hz, sweep_s = 1000.0, 1.0
    recording = Recording()
    run = _Run(
        recording, plan_name="fly_scan", experiment=experiment, element=("Co",), edge="K", e0="7709.0",
        angle_offset=str(angle_offset), **{f"ch{n}_offset": offset_mv for n in (1, 2, 3, 4)},
        **{f"ch{n}_amp_gain": gain for n, gain in enumerate(gains.values(), 1)},
    )  # fmt: skip

    def energy_at(time: Array) -> Array:
        phase = np.clip(time / sweep_s, 0, sweeps)
        up = np.abs((phase + 1) % 2 - 1)  # 0 → 1 → 0
        return AXIS[0] + (AXIS[-1] - AXIS[0]) * up

    begin = BEGIN_S + 10.0
    fast = np.arange(0.0, sweeps * sweep_s, 1 / rate_hz) + 0.5 / rate_hz
    c = currents(energy_at(fast))
    channels = np.zeros((fast.size, 10))
    for n, (name, gain) in enumerate(gains.items()):
        channels[:, n] = np.round(c[name] * 10**gain * 1e6 + offset_mv * 1e3)
    stamps = begin + fast
    channels[:, 8] = np.floor(stamps)
    channels[:, 9] = np.round((stamps - np.floor(stamps)) * 1e9 / 8.0051232)
    channels = np.concatenate(
        [np.repeat(channels, np.where(np.arange(fast.size) % 400 == 3, 2, 1), axis=0), np.zeros((50, 10))]
    )
    path = folder / f"{run.uid}.bin"
    path.write_bytes(channels.astype("<i4").tobytes())
    slow = np.arange(-0.05, sweeps * sweep_s + 0.05, 0.0017)
    counts = np.round((-SI111.position(energy_at(slow), 0.0) - angle_offset) * 360000).astype(int) % 2**24
    ns = np.round((begin + slow) * 1e9).astype(np.int64)
    text = folder / f"{run.uid}.txt"
    rows = zip(ns // 10**9, ns % 10**9, counts, itertools.count(1), itertools.repeat(0))
    text.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    for file in (path, text):  # the files must not look as if they were still being written
        os.utime(file, (BEGIN_S, BEGIN_S))
    table = {"source": "APB", "dtype": "array", "shape": [-1, -1], "external": "FILESTORE:"}
    for name, spec, where in ((stream, "APB", path), (encoder, "PIZZABOX_ENC_FILE_TXT_PD", text)):
        datum = run.resource(spec, where)
        made = run.stream(name, **{name: table})
        run.event(made, {name: datum()})
    run.stop()
    for k in range(sweeps):
        recording.sweeps.append(sweep(AXIS if k % 2 == 0 else AXIS[::-1]))
    return recording


def haven_step(folder: Path, chunk: int = 40) -> Recording:
    """Haven step scan: energies in Events, ion chambers in HDF5 by StreamResource, rows announced in chunks."""
    import h5py

    recording = Recording()
    c = currents(AXIS)
    path = folder / "ion_chambers.h5"
    with h5py.File(path, "w") as file:
        for name in ("I0", "It"):
            file[f"entry/{name}"] = c[name] * 1e12
    run = _Run(recording, plan_name="xafs_scan", E0=EDGE_EV, edge="Co_K", d_spacing=3.1356)
    keys = {"I0-count": {**EXTERNAL}, "It-count": {**EXTERNAL}, "I0-clock-count": number(), "energy-id": number()}
    primary = run.stream("primary", **{"monochromator-energy": number("eV")}, **keys)
    announce = [run.hdf5(path, f"{name}-count", f"/entry/{name}", primary) for name in ("I0", "It")]
    done = 0
    for i, e in enumerate(AXIS, 1):
        run.event(primary, {"monochromator-energy": e, "I0-clock-count": 1e6, "energy-id": 1.0})
        if i % chunk == 0 or i == AXIS.size:
            for rows in announce:
                rows(done, i)
            done = i
    run.stop()
    recording.sweeps.append(sweep(AXIS, foil=False))
    return recording


def haven_fly(folder: Path) -> Recording:
    """Haven fly scan: EventPages of each detector, and the monochromator as a monitor with fewer readings."""
    recording = Recording()
    run = _Run(recording, plan_name="fly_scan", edge="Co-K", motors=["energy"], detectors=["I0", "It"])
    energy = np.linspace(AXIS[0], AXIS[-1], 330)
    start = run.time
    times = start + 0.1 * np.arange(energy.size)
    motor = run.stream("energy", **{"monochromator-energy": number("eV")})
    for t in np.arange(times[0] - 0.5, times[-1] + 0.5, 0.5):
        position = energy[0] + (t - times[0]) / (times[-1] - times[0]) * (energy[-1] - energy[0])
        run.event(motor, {"monochromator-energy": position}, float(t))
    c = currents(energy)
    for name in ("I0", "It"):
        stream = run.stream(name, **{f"{name}-count": number()})
        values = (c[name] * 1e12).tolist()
        for part in np.array_split(np.arange(energy.size), 3):
            page = stream.compose_event_page(
                data={f"{name}-count": [values[i] for i in part]},
                timestamps={f"{name}-count": times[part].tolist()},
                time=times[part].tolist(),
                seq_num=(part + 1).tolist(),
            )
            run.add("event_page", page)
    run.stop()
    recording.sweeps.append(sweep(energy, foil=False))
    return recording


def sst1(folder: Path, scantype: str = "xas") -> Recording:
    """SST-1: an Event per point of the moving monochromator, with electron yield and its I0."""
    recording = Recording()
    run = _Run(
        recording, plan_name="nexafs_scan", scantype=scantype, element="Co", edge="K", sample_name="LCO",
        repeat={"uid": "r", "len": 1, "index": 0},
    )  # fmt: skip
    names = {"nexafs_i0up": "I0", "nexafs_sc": "If", "nexafs_ref": "Ir"}
    keys = {"en_energy": number("eV"), "en_energy_setpoint": number("eV")} | {key: number() for key in names}
    primary = run.stream("primary", **keys)
    c = currents(AXIS)
    for i, e in enumerate(AXIS):
        run.event(primary, {"en_energy": e, "en_energy_setpoint": e, **{key: c[of][i] for key, of in names.items()}})
    run.stop()
    recording.sweeps.append(sweep(AXIS, "fluorescence", foil=False))
    return recording


def diamond(folder: Path, sweeps: int = 4, flush: int = 90) -> Recording:
    """P51: sweeps of a motor up and down in one run, in the HDF5 file of a PandA, with rows announced in chunks."""
    import h5py

    recording = Recording()
    energies = [AXIS if k % 2 == 0 else AXIS[::-1] for k in range(sweeps)]
    whole = np.concatenate(energies)
    c = currents(whole)
    columns = {"bragg": SI111.position(whole, 0.0), "i0": c["I0"], "it": c["It"]}
    path = folder / "panda.h5"
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file[name] = column
    run = _Run(recording, plan_name="fly_sweep", plan_args={"motor": "<Motor 'bragg'>", "panda": "<HDFPanda>"})
    primary = run.stream("primary", **{f"panda1-{name}": {**EXTERNAL} for name in columns})
    announce = [run.hdf5(path, f"panda1-{name}", f"/{name}", primary) for name in columns]
    for start in range(0, whole.size, flush):
        for rows in announce:
            rows(start, min(start + flush, whole.size))
    run.stop()
    recording.sweeps += [sweep(energy, foil=False) for energy in energies]
    return recording


def quick(folder: Path, sweeps: Sequence[bool] = (True, False, True), seed: int = 0) -> Recording:
    """Quick XAS: an Event with several oscillations, sampled densely by an encoder with jitter, and final zeros."""
    rng = np.random.default_rng(seed)
    recording = Recording()
    run = _Run(recording, plan_name="quick_scan", element="Co", edge="K")
    axis = np.linspace(AXIS[0], AXIS[-1], 4000)
    true = np.concatenate([axis if up else axis[::-1] for up in sweeps])
    c = currents(true)
    padding = np.zeros(500)
    data = {"energy": np.concatenate([true + rng.normal(0, 0.02, true.size), padding])}
    data |= {name: np.concatenate([c[name], padding]) for name in ("I0", "It", "Ir")}
    about = {"source": "SIM", "dtype": "array", "shape": [true.size + padding.size]}
    stream = run.stream("primary", **dict.fromkeys(data, about))
    run.event(stream, data)
    run.stop()
    recording.sweeps += [sweep(axis if up else axis[::-1]) for up in sweeps]
    return recording
