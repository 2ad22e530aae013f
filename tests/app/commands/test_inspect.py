"""``xas-agent inspect``: what it shows, and settings that work unchanged."""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from forked import command, run_command
from made_scans import ENERGY, ODD, columns, documents, saved

from xas_agent.adapters.zmq import ZMQEndpoint, ZMQSink
from xas_agent.agent.fields import Bragg
from xas_agent.agent.types import Document
from xas_agent.app.config import load_config
from xas_agent.app.jobs.inspect import read_frames


def inspected(*args: object) -> str:
    """What the command prints; it fits a terminal of 80 columns."""
    shown = run_command("inspect", *args, columns=80).stdout
    assert max(len(line.rstrip()) for line in shown.splitlines() if "/" not in line) <= 80
    return shown


def test_odd_names_give_settings_that_a_run_accepts_unchanged(tmp_path):
    file = saved(tmp_path / "run.jsonl", documents(columns(), plan_name="xafs", motors=["mono_bragg_e"]))
    out = tmp_path / "beamline.yaml"
    shown = inspected(file, "--out", out)
    assert "mono_bragg_e: the motor of the plan" in shown
    assert "ic_3_V: falls by" in shown
    assert "Missing: nothing" in shown
    assert "Ni K (8333 eV)" in shown
    assert "As it is, the agent reads 0 spectra" in shown
    assert "it reads 1 spectrum" in shown
    fields = load_config(out).fields
    assert {role: getattr(fields, role) for role in ODD} == ODD
    replayed = run_command("replay", file, "--config", out)
    assert "frames             1" in replayed.stdout


def test_settings_are_printed_and_an_existing_file_is_kept(tmp_path):
    file = saved(tmp_path / "run.jsonl", documents(columns(), plan_name="xafs"))
    printed = inspected(file)
    assert printed.rstrip().endswith(f"xas-agent init {file}")
    settings = tmp_path / "printed.yaml"
    settings.write_text(printed[printed.index("# Settings") : printed.index("As it is")])
    assert load_config(settings).fields.it == "ic_dn_V"
    assert "existing file" in run_command("inspect", file, "--out", settings, code=2).stderr


@pytest.mark.parametrize(
    ("names", "formula"),
    [
        ({"energy": "axis", "i0": "a", "it": "b", "iref": "c"}, "transmission"),
        ({"energy": "axis", "i0": "a", "fluorescence": "b"}, "fluorescence"),
        ({"energy": "axis", "mu": "a"}, "mu"),
    ],
)
def test_roles_are_found_by_the_values_where_no_name_tells_them(names, formula, tmp_path):
    data = columns(names)
    if formula == "mu":
        del data["ring_mA"], data["T"]
    file = saved(tmp_path / "run.jsonl", documents(data, plan_name="scan"))
    inspected(file, "--out", tmp_path / "out.yaml")
    fields = load_config(tmp_path / "out.yaml").fields
    found = {role: getattr(fields, role) for role in names}
    assert found == {role: (key,) if role == "fluorescence" else key for role, key in names.items()}
    assert fields.formula == formula


@pytest.mark.parametrize(
    ("position", "metadata"),
    [
        (Bragg(d_spacing_ang=3.1356).position(ENERGY, 0.0), {}),
        (Bragg(d_spacing_ang=1.6375).position(ENERGY, 0.0), {"element": "Ni", "edge": "K"}),
        (ENERGY / 1000.0, {}),
    ],
    ids=["angles", "angles of another crystal", "keV without a unit"],
)
def test_a_position_gets_its_relation_to_energy(position, metadata, tmp_path):
    names = {**ODD, "energy": "theta" if position[0] > position[-1] else "axis"}
    data = {**columns(names), names["energy"]: position}
    docs = documents(data, plan_name="scan", **metadata)
    inspected(saved(tmp_path / "run.jsonl", docs), "--out", tmp_path / "out.yaml")
    trial = read_frames(docs, load_config(tmp_path / "out.yaml"))
    assert (trial.frames, trial.set_aside) == (1, {})


def test_usual_names_and_those_of_the_config_are_told_apart(tmp_path):
    names = {"energy": "dcm_energy", "i0": "I0", "it": "It", "iref": "Ir"}
    file = saved(tmp_path / "run.jsonl", documents(columns(names), plan_name="scan_nd xafs", element="Ni"))
    shown = inspected(file)
    assert "is read as it is" in shown
    assert "dcm_energy: a usual name" in shown
    assert "Closest preset: bmm; 4 of its 5 names occur" in shown
    (tmp_path / "mine.yaml").write_text("fields: {it: Ir}\nserving: {max_batch: 7}\n")
    shown = inspected(file, "--config", tmp_path / "mine.yaml", "--out", tmp_path / "out.yaml")
    assert "Ir: named in the config" in shown
    assert load_config(tmp_path / "out.yaml").serving.max_batch == 7
    inspected(file, "--preset", "bmm", "--out", tmp_path / "preset.yaml")
    assert load_config(tmp_path / "preset.yaml").preset == "bmm"


def test_what_is_missing_is_named(tmp_path):
    data = {key: column for key, column in columns().items() if key in ("mono_bragg_e", "T")}
    shown = inspected(saved(tmp_path / "run.jsonl", documents(data, plan_name="scan")))
    assert "Missing: I0, It or If (or μ)" in shown
    shown = inspected(saved(tmp_path / "skipped.jsonl", documents(columns(), plan_name="align_mono")))
    assert "contains 'align'" in shown


def test_another_element_than_the_run_names_is_shown(tmp_path):
    names = {"energy": "energy", "i0": "I0", "it": "It"}
    shown = inspected(saved(tmp_path / "run.jsonl", documents(columns(names), plan_name="xafs", element="Fe")))
    assert "the run names Fe; its energies suggest Ni K" in shown


def test_columns_of_a_file_give_options(tmp_path):
    table = columns()
    path = tmp_path / "scan.dat"
    np.savetxt(path, np.column_stack(list(table.values())), header=" ".join(table))
    shown = inspected(path)
    options = [line.split()[1] for line in shown.splitlines() if line.startswith("  --column")]
    assert options == ["energy=mono_bragg_e", "i0=ic_upstream_V", "it=ic_dn_V", "iref=ic_3_V"]
    assert "gives 1 spectrum" in shown
    done = run_command("align", path, "--out", tmp_path / "out", *(w for o in options for w in ("--column", o)))
    assert "refused" not in done.stderr


def test_angles_in_a_file_give_the_option_of_the_crystal(tmp_path):
    table = columns({"energy": "theta", "i0": "I0", "it": "It"})
    table["theta"] = Bragg(d_spacing_ang=3.1356).position(table["theta"], 0.0)
    path = tmp_path / "scan.dat"
    np.savetxt(path, np.column_stack(list(table.values())), header=" ".join(table))
    shown = inspected(path)
    options = [line.split()[1] for line in shown.splitlines() if line.startswith("  --column")]
    assert options == ["energy=theta", "i0=I0", "it=It", "d_spacing=3.1356"]
    assert "gives 1 spectrum" in shown
    done = run_command("align", path, "--out", tmp_path / "out", *(w for o in options for w in ("--column", o)))
    assert "refused" not in done.stderr


def test_a_folder_of_spectra_needs_no_fields(tmp_path):
    table = columns({"energy": "energy", "i0": "i0", "it": "itrans"})
    folder = tmp_path / "day"
    folder.mkdir()
    for name in ("a.dat", "b.dat"):
        np.savetxt(folder / name, np.column_stack(list(table.values())), header=" ".join(table))
    (folder / "bad.dat").write_text("no numbers\n")
    shown = inspected(folder, "--out", tmp_path / "out.yaml")
    assert "3 files" in " ".join(shown.split())  # a long path wraps the line
    assert "Refused:" in shown
    assert "the agent reads 2 spectra" in shown
    assert load_config(tmp_path / "out.yaml").fields.model_fields_set == set()


def test_a_scan_over_two_edges_is_set_aside_as_run_does_until_its_element_is_named(tmp_path):
    energy = np.arange(7560.0, 8900.0, 2.0)
    mu = sum(1 / (1 + np.exp(-(energy - e0) / 1.5)) for e0 in (7722.0, 8345.0))
    np.savetxt(tmp_path / "two.dat", np.column_stack([energy, mu]), header="energy mu")
    shown = " ".join(inspected(tmp_path / "two.dat").split())
    assert "the agent reads 0 spectra (1 set aside: several models; first: co-k, ni-k all fit 7560.0…8898.0" in shown
    assert "Next: name the element" in shown
    assert "the agent reads 1 spectrum." in " ".join(inspected(tmp_path / "two.dat", "--element", "Ni").split())


def test_a_folder_of_documents_is_read(tmp_path):
    saved(tmp_path / "run.jsonl", documents(columns(), plan_name="xafs"))
    assert "it reads 1 spectrum" in inspected(tmp_path)


@contextmanager
def publishing(docs: Sequence[Document]) -> Iterator[str]:
    """The address at which the documents are sent as soon as somebody listens."""
    sink = ZMQSink(ZMQEndpoint(address="tcp://127.0.0.1:0", bind=True))
    sink.connect()

    def send() -> None:
        if sink.wait_for_subscriber(60):
            for name, doc in docs:
                sink(name, dict(doc))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield sink.address.replace("tcp", "zmq")
    finally:
        sender.join()
        sink.close()


def test_a_stream_over_zmq_is_inspected_until_its_run_is_complete(tmp_path):
    docs = documents(columns(), plan_name="xafs", motors=["mono_bragg_e"])
    with publishing(docs) as address:
        shown = inspected(address, "--out", tmp_path / "out.yaml")
    config = load_config(tmp_path / "out.yaml")
    assert config.source is not None
    assert config.source.address == address
    assert f"xas-agent run --config {tmp_path / 'out.yaml'}" in shown
    assert read_frames(docs, config).frames == 1


def test_a_run_that_does_not_end_is_shown_after_the_wait():
    docs = documents(columns(), plan_name="xafs")[:-1]
    with publishing(docs) as address:
        shown = inspected(address, "--timeout", 3)
    assert f"{ENERGY.size} events" in shown
    assert "ic_dn_V: its name suggests it" in shown


def test_nothing_that_arrives_is_a_failure():
    with publishing([]) as address:
        assert "found no document within 0.5 s" in run_command("inspect", address, "--timeout", 0.5, code=1).stderr


@pytest.mark.slow
def test_ctrl_c_shows_what_was_seen():
    docs = documents(columns(), plan_name="xafs")[:-1]
    with publishing(docs) as address:
        line = command("inspect", address, "--runs", 5)
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            _skip_until(process.stderr.readline, f"{len(docs)} documents")
            process.send_signal(signal.SIGINT)
            stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"{ENERGY.size} events" in stdout


def _skip_until(line: Callable[[], str], text: str) -> None:
    while text not in (read := line()):
        assert read


def test_the_sample_is_found_under_an_odd_key(tmp_path):
    shared = {"plan_name": "xafs", "expt_label": "pouch 3", "sample_env": {"cell": "flow"}, "operator": "ada"}
    docs = [doc for _ in range(2) for doc in documents(columns(), **shared)]
    out = tmp_path / "beamline.yaml"
    assert "Sample: by expt_label of the RunStart likely, which is pouch 3" in inspected(
        saved(tmp_path / "odd.jsonl", docs), "--out", out
    )
    assert load_config(out).series.key == ("expt_label",)
    assert "Sample: pouch 3\n" in inspected(tmp_path / "odd.jsonl", "--config", out)


def test_runs_without_a_sample_are_pointed_out(tmp_path):
    docs = [doc for label in ("scan 1", "scan 2") for doc in documents(columns(), expt_label=label)]
    shown = inspected(saved(tmp_path / "run.jsonl", docs))
    assert "each run is a series of its own" in shown
    assert "series:" not in shown


def test_named_samples_are_counted_with_the_runs_without(tmp_path):
    docs = [*documents(columns(), sample_name="NiO"), *documents(columns(), expt_label="x")]
    assert "Sample: NiO; 1 run without a name" in inspected(saved(tmp_path / "run.jsonl", docs))
