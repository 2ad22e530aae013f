"""The command, each time in a process of its own, as a user runs it."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pytest
import yaml
from deadline import wait_until
from forked import command, run_command
from valid import check_document

import xas_agent
from xas_agent.agent.types import Array, keys_of
from xas_agent.app.jobs.infer import render
from xas_agent.cli import PANELS
from xas_agent.models import card as cards
from xas_agent.sim_beamline.beamline import SimBeamline
from xas_agent.sim_beamline.settings import BeamlineSettings
from xas_agent.sim_beamline.spectra import ReferenceSpectra

CLASSIFIED, REGRESSED = ("OS", "CN", "OCN", "CN2", "PSGO"), ("NNRS", "MOOD", "mean_bond")
LITHIUM = np.linspace(1.0, 0.45, 8)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def xa(*args: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run_command(*args, code=code, columns=200)


def refused(*args: object, code: int) -> str:
    """The one line with which the command ends; log lines may come before it."""
    done = xa(*args, code=code)
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if line.startswith("xas-agent: ")]
    assert said == done.stderr.splitlines()[-1:]
    return said[0]


@cache
def cathode() -> dict[str, Array]:
    with files("xas_agent.sim_beamline").joinpath("cathode_co_k.npz").open("rb") as f, np.load(f) as z:
        return {k: z[k].astype(float) for k in z.files}


@pytest.fixture(scope="module")
def feff(tmp_path_factory) -> Path:
    """Rows as FEFF writes them: from the first rise to 100 eV above the edge."""
    path, kept = tmp_path_factory.mktemp("feff") / "rows.npz", slice(300, 845)
    mu = cathode()["mu"][:, kept]
    ids = [f"x{x:.2f}" for x in cathode()["x"]]
    np.savez(path, id=ids, energy=np.broadcast_to(cathode()["energy"][kept], mu.shape), mu=mu)
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """A recorded charge: eight spectra ten minutes apart, a foil, a voltage, and the lithium to be found."""
    folder, reference = tmp_path_factory.mktemp("recording"), ReferenceSpectra(broadening_ev=1.0)
    energy = 7709.0 + np.arange(-60.0, 110.1, 0.5)
    norm = np.array([reference.cathode(energy, x) for x in LITHIUM])
    np.savez(folder / "spectra.npz", energy=energy, norm=norm, reference=np.tile(reference.foil(energy), (8, 1)))
    with (folder / "series.csv").open("w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["scan", "start", "Ewe_V", "x_Li"])
        for k, x in enumerate(LITHIUM):
            start = datetime(2024, 5, 1, 9) + timedelta(minutes=10 * k)
            table.writerow([f"scan{k}", start.isoformat(), 3.9 + 0.05 * k, x])
    return folder


def rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="", encoding="utf-8") as f:
        reader = csv.DictReader(f)
        return list(reader.fieldnames or ()), list(reader)


def documents(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The agent's own documents, each valid, every run whole."""
    found = [json.loads(line) for line in (folder / "documents.jsonl").read_text().splitlines()]
    for name, doc in found:
        check_document(name, doc)
    starts = [doc["uid"] for name, doc in found if name == "start"]
    assert sorted(doc["run_start"] for name, doc in found if name == "stop") == sorted(starts)
    assert found[-1][0] == "stop"
    return found


# ------------------------------------------------------------------ what it says of itself


def test_help_and_version():
    said = xa("--help").stdout
    assert [*re.findall(r"^(\w.*):$", said, re.M)] == ["Options", *PANELS]
    names = [name for panel in PANELS.values() for name in panel]
    assert [*re.findall(r"^  ([a-z]+)  ", said, re.M)] == names
    assert not re.search(r"\w\.\.\.", said)  # every sentence is whole
    assert max(map(len, said.splitlines())) < 80
    assert xa("-h").stdout == said
    assert xa("keys", "make", "-h").stdout == xa("keys", "make", "--help").stdout
    assert xa("--version").stdout.strip() == xas_agent.__version__
    assert "--connect-timeout" in xa("run", "--help").stdout


def test_models_list_show_verify(tmp_path):
    listed = xa("models", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [
        "co-k",
        "cr-k",
        "cu-k",
        "fe-k",
        "mn-k",
        "ni-k",
        "o-k",
        "ti-k",
        "v-k",
    ]
    shown = xa("models", "show", "ni-k", "--full").stdout
    assert shown.strip() == (cards.find("ni-k") / "card.yaml").read_text(encoding="utf-8").strip()
    folder = shutil.copytree(cards.find("co-k"), tmp_path / "co-k")
    (folder / "model.ts").write_bytes(b"other")
    assert "does not match its card" in refused("models", "verify", folder, code=2)


# ------------------------------------------------------------------ what a user can mend


def test_a_misspelt_key_names_file_key_and_what_was_expected(tmp_path):
    (tmp_path / "mine.yaml").write_text("control: {enabeld: true}\n")
    said = refused("run", "--config", tmp_path / "mine.yaml", "--out", tmp_path / "out", code=2)
    assert said == (
        f"xas-agent: {tmp_path / 'mine.yaml'}: unknown key control.enabeld; expected one of allow, authority, "
        "authority_of, confirm_within_s, enabled, limits, max_age_s, paused_replay_s, settable, timeout_s"
    )
    assert not (tmp_path / "out").exists()


def test_a_changed_model_is_refused(tmp_path, feff):
    folder = shutil.copytree(cards.find("co-k"), tmp_path / "co-k")
    (folder / "model.ts").write_bytes((folder / "model.ts").read_bytes() + b"\0")
    said = refused("infer", feff, "--theory", "--model", folder, code=2)
    assert f"{folder / 'model.ts'}: SHA-256" in said
    assert "does not match its card" in said


def test_a_dead_endpoint(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"zmq://127.0.0.1:{free.getsockname()[1]}"
    said = refused("run", "--source", address, "--connect-timeout", 1, code=3)
    assert address in said
    assert "within 1 s" in said


@pytest.mark.slow
def test_a_beamline_that_nobody_watches():
    done = subprocess.run(
        command("sim", "--wait", 0.2, "--publish", "zmq://127.0.0.1:0"),
        capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 3
    addresses = json.loads(done.stdout)
    assert addresses["documents"].startswith("zmq://127.0.0.1:")
    assert addresses["control"].startswith("ipc:///")
    assert "nobody subscribed within 0.2 s" in done.stderr


def test_nothing_to_replay(tmp_path, recording):
    assert "spectra.npz: not found" in refused("replay", tmp_path, code=2)
    (tmp_path / "empty.jsonl").touch()
    assert "empty file" in refused("replay", tmp_path / "empty.jsonl", code=2)
    assert "expected a number or max" in refused("replay", recording, "--speed", "fast", code=2)


@pytest.mark.parametrize(
    ("energy", "edges", "message"),
    [
        ((7600, 8700), (7709, 8333), "co-k, ni-k all fit 7600.0…8699.0 eV; choose one with --model or --element"),
        pytest.param(
            (9550, 9850),
            (9659,),
            "no model for Zn K (9550.0…9849.0 eV); loaded are Co K, Cr K, Cu K, Fe K, Mn K, Ni K, O K, Ti K, V K",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_energies_of_no_model_or_of_several(tmp_path, energy, edges, message):
    e = np.arange(*energy, dtype=float)
    np.savez(tmp_path / "scan.npz", energy=e, mu=sum(np.arctan(e - edge) for edge in edges))
    assert message in refused("infer", tmp_path / "scan.npz", code=2)


# ------------------------------------------------------------------ infer


def not_a_number(text: str) -> float:
    raise AssertionError(f"{text} is no JSON")


@pytest.fixture(scope="module")
def inferred(feff) -> list[dict[str, Any]]:
    done = xa("infer", feff, "--theory", "--format", "json")
    assert "name=co-k" in done.stderr.replace("'", "")  # the energies chose, and the log says so
    return json.loads(done.stdout, parse_constant=not_a_number)


def test_json_has_an_object_per_spectrum(inferred, feff):
    assert [a["id"] for a in inferred] == [f"x{x:.2f}" for x in cathode()["x"]]
    for k, answer in enumerate(inferred):
        assert (answer["source"], answer["row"]) == (str(feff), k)
        assert set(answer) == {
            "id",
            "source",
            "row",
            "sample",
            "element",
            "ood_score",
            "flags",
            "alignment",
            *CLASSIFIED,
            *REGRESSED,
        }
        for name in CLASSIFIED:
            assert set(answer[name]) == {"value", "p", "mean", "lo", "hi", "sd_frame"}
            assert 0 < answer[name]["p"] <= 1
        for name in REGRESSED:
            assert set(answer[name]) == {"mean", "lo", "hi", "sd_frame"}
        assert answer["OS"]["mean"] == pytest.approx(4 - cathode()["x"][k], abs=0.15)
        assert answer["ood_score"] <= 1
        assert answer["flags"] == []


def test_csv_and_table_say_the_same(inferred, feff, tmp_path, capsys):
    (tmp_path / "co.csv").write_text(xa("infer", feff, "--theory", "--format", "csv", "--model", "co-k").stdout)
    header, table = rows(tmp_path / "co.csv")
    names = [d for d in inferred[0] if d in (*CLASSIFIED, *REGRESSED)]
    columns = [c for d in names for c in (d, f"{d}_p", f"{d}_mean", f"{d}_lo", f"{d}_hi", f"{d}_sd_frame")]
    assert header == ["id", "source", "row", "sample", "element", "set_aside", *columns, "ood_score", "flags"]
    assert [float(row["OS_mean"]) for row in table] == pytest.approx([a["OS"]["mean"] for a in inferred], abs=1e-5)
    assert {row["NNRS"] for row in table} == {""}
    render(inferred, "table")
    printed = capsys.readouterr().out
    for answer in inferred:
        assert f"{answer['OS']['mean']:.2f} ({answer['OS']['lo']:.2f}…{answer['OS']['hi']:.2f})" in printed


def test_rows_set_aside_are_told_and_count_under_strict(tmp_path):
    energy, mu = cathode()["energy"][300:845], cathode()["mu"][:4, 300:845].copy()
    mu[1, 200] = np.nan
    np.savez(tmp_path / "some.npz", energy=energy, mu=mu)
    done = xa("infer", tmp_path / "some.npz", "--theory", "--model", "co-k", "--format", "json", "--strict", code=4)
    answers = json.loads(done.stdout)
    assert [a["id"] for a in answers] == [f"some.npz:{k}" for k in range(4)]
    assert ["set_aside" in a for a in answers] == [False, True, False, False]
    assert answers[1]["set_aside"].startswith("NaN in data")
    short = xa(
        "infer", tmp_path / "some.npz", "--model", "co-k", "--format", "csv"
    )  # not measured like this: told, 0
    assert short.returncode == 0


@pytest.mark.slow
def test_text_and_measured_spectra(tmp_path):
    energy, reference = 7709.0 + np.arange(-60.0, 110.1, 0.5), ReferenceSpectra(broadening_ev=1.0)
    measured = 0.4 + 1.3 * reference.cathode(energy, 1.0) - 1e-3 * (energy - 7709)
    np.savetxt(tmp_path / "a.dat", np.c_[energy, measured], header="energy mu")
    foil = np.c_[energy, measured, reference.foil(energy)]
    np.savetxt(tmp_path / "b.dat", foil[::-1], header="energy mu reference")
    asked = ["infer", tmp_path / "a.dat", tmp_path / "b.dat", "--format", "json"]
    answers = json.loads(xa(*asked).stdout)
    assert set(json.loads(xa(*asked, "--all").stdout)[0]) - set(answers[0]) == {"CN2", "PSGO"}
    assert [a["id"] for a in answers] == ["a.dat:0", "b.dat:0"]
    for answer in answers:
        assert answer["OS"]["mean"] == pytest.approx(3.0, abs=0.2)
        assert answer["alignment"]["edge_step"] == pytest.approx(1.3, rel=0.1)
    counterpart = tmp_path / "licoo2.npz"
    np.savez(counterpart, id=["x1"], energy=cathode()["energy"][None, 300:845], mu=cathode()["mu"][-1:, 300:845])
    mine = tmp_path / "mine"
    shutil.copytree(cards.find("co-k"), mine)
    picture = tmp_path / "standards.png"
    asked = ["calibrate", f"{tmp_path / 'b.dat'}=x1", "--feff", counterpart, "--model", mine, "--picture", picture]
    said = xa(*asked, "--write").stdout
    assert "b.dat against x1" in said
    assert picture.read_bytes().startswith(b"\x89PNG")
    card = cards.read_card(mine)
    assert card.feff_minus_experiment.value_ev == pytest.approx(reference.feff_offset_ev, abs=0.5)
    assert card.domain.scale == pytest.approx(reference.feff_scale, abs=0.02)
    assert card.domain.amplitude == pytest.approx(0.91, abs=0.08)
    assert "scale" in (mine / "README.md").read_text()
    assert card.standards == ()  # those before were answered with another offset


# ------------------------------------------------------------------ replay


@pytest.fixture(scope="module")
def replayed(recording, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("replayed") / "deep" / "out"
    xa("replay", recording, "--speed", "max", "--out", out, "--strict")
    return out


def test_a_replay_leaves_its_files(replayed):
    assert {p.name for p in replayed.iterdir()} >= {
        "documents.jsonl", "descriptors.csv", "decisions.csv", "summary.json", "operando.png",
    }  # fmt: skip
    summary = json.loads((replayed / "summary.json").read_text(), parse_constant=not_a_number)
    assert (summary["frames"], summary["frames_set_aside"], summary["decisions"]) == (8, {}, 0)
    assert summary["model"] == {"name": "co-k", "sha256": cards.read_card(cards.find("co-k")).sha256}
    assert set(summary["latency_ms"]) == {"p50", "p99"}
    assert summary["wall_s"] > 0
    assert summary["x_true_at_stop"] is None  # nothing stopped it
    assert (replayed / "operando.png").read_bytes().startswith(b"\x89PNG")
    documents(replayed)


def test_descriptors_csv_is_a_row_per_frame(replayed, recording):
    header, table = rows(replayed / "descriptors.csv")
    # What means nothing for a mixture of sites, or is hardly known, is in the documents, not among what is shown.
    card = cards.read_card(cards.find("co-k"))
    order = [d for d in card.descriptors if d.mixture and d.name not in card.hardly_known]
    assert {"CN2", "PSGO", "NNRS"}.isdisjoint(d.name for d in order)
    assert any({"CN2_mean", "PSGO", "NNRS_mean"} <= set(doc.get("data", ())) for _, doc in documents(replayed))
    assert header == [
        "time", "run_uid", "seq_num", "sample", "scan_id", "file", "element",
        *(c for d in order for c in keys_of(d.name) if d.classes or c not in (d.name, f"{d.name}_p")),
        "ood_score", "e0_ev", "edge_step", "noise", "latency_ms", "flags",
        "Ewe_V", "recorded_time",
    ]  # fmt: skip
    assert [int(row["seq_num"]) for row in table] == list(range(1, 9))
    assert len({row["run_uid"] for row in table}) == 1
    assert [float(row["Ewe_V"]) for row in table] == pytest.approx([3.9 + 0.05 * k for k in range(8)])
    found = np.array([float(row["OS_mean"]) for row in table])
    assert np.abs(found - (4 - LITHIUM)).max() < 0.2
    assert (np.diff(found) > 0).all()
    assert np.diff([float(row["recorded_time"]) for row in table]) == pytest.approx(600)


def test_the_lithium_is_kept_from_the_agent(replayed):
    said = (replayed / "documents.jsonl").read_text() + (replayed / "descriptors.csv").read_text()
    assert "x_Li" not in said


def test_a_replay_that_nobody_resumes_ends_with_its_reason(recording, tmp_path):
    rule = {"name": "hold", "trigger": {"kind": "threshold", "quantity": "OS", "above": 0.0}, "action": "pause"}
    control = {"enabled": True, "allow": ["pause"], "paused_replay_s": 0.5}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"rules": [rule], "control": control}))
    said = xa(
        "replay", recording, "--speed", "1000", "--config", tmp_path / "rules.yaml", "--model", "co-k", code=1
    ).stderr
    assert "PAUSED" in said
    assert "paused by rule hold, and not resumed within 0.5 s" in said.splitlines()[-1]


@pytest.mark.slow
def test_replaying_documents(tmp_path):
    with (tmp_path / "scan.jsonl").open("w") as f:

        def write(name: str, doc: dict[str, Any]) -> None:
            f.write(json.dumps([name, doc], cls=event_model.NumpyEncoder) + "\n")

        SimBeamline(BeamlineSettings(frames=4, frame_period_s=0, mode="step"), [write], [write]).run()
    xa("replay", tmp_path / "scan.jsonl", "--out", tmp_path / "out", "--model", "co-k")
    _, table = rows(tmp_path / "out" / "descriptors.csv")
    assert [int(row["seq_num"]) for row in table] == [1, 2, 3, 4]
    (start,) = [doc for name, doc in documents(tmp_path / "out") if name == "start"]
    assert start["sample_uid"]
    assert "mono_error_ev" not in (tmp_path / "out" / "documents.jsonl").read_text()


@pytest.mark.slow
def test_what_replay_sets_aside_counts_under_strict(tmp_path, recording):
    with np.load(recording / "spectra.npz") as z:
        arrays = dict(z)
    arrays["norm"][2] = 0.5
    np.savez(tmp_path / "spectra.npz", **arrays)
    shutil.copy(recording / "series.csv", tmp_path)
    xa("replay", tmp_path, "--out", tmp_path / "out", "--element", "Co", "--strict", code=4)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["frames"] == 7
    assert summary["frames_set_aside"] == {"edge step within noise": 1}
    assert [row["seq_num"] for row in rows(tmp_path / "out" / "descriptors.csv")[1]] == ["1", "2", *"45678"]


# ------------------------------------------------------------------ Ctrl-C


def interrupted(line: list[str], out: Path, enough: Callable[[str], bool]) -> subprocess.CompletedProcess[str]:
    """Run it, press Ctrl-C once ``documents.jsonl`` holds enough."""
    with subprocess.Popen(
        [*line, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        written = out / "documents.jsonl"

        def came() -> bool:
            assert process.poll() is None
            return written.is_file() and enough(written.read_text())

        wait_until(came)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=40)
    assert "Traceback" not in stderr
    return subprocess.CompletedProcess(line, process.returncode, stdout, stderr)


@pytest.mark.parametrize("kind", ["run", pytest.param("replay", marks=pytest.mark.slow)])
def test_ctrl_c_leaves_whole_files(kind, tmp_path, recording):
    line = command("run", "--frames", 70)
    if kind == "replay":
        line = [sys.executable, "-m", "xas_agent", "replay", str(recording), "--speed", "60"]
    done = interrupted(
        line, tmp_path / "out", lambda text: len(re.findall(r'^\["event".*"OS_mean"', text, re.M)) >= 2
    )
    assert done.returncode == 0
    documents(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(), parse_constant=not_a_number)
    _, table = rows(tmp_path / "out" / "descriptors.csv")
    assert summary["interrupted"]
    assert 2 <= summary["frames"] == len(table) < (70 if kind == "run" else 8)
    assert (tmp_path / "out" / "operando.png").stat().st_size > 10_000


def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_word():
    program = (
        "import os, runpy, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'xas_agent.app.commands':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "runpy.run_module('xas_agent', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
