"""ONNX Runtime beside TorchScript: export, agreement, and what is refused."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from forked import run_command

from xas_agent.app.config import load_config
from xas_agent.app.wiring import load_models
from xas_agent.models import card as cards
from xas_agent.models.card import ModelError
from xas_agent.models.convert import plausible_spectra, served_of
from xas_agent.models.engines import CPU_BATCH_ROWS
from xas_agent.models.runtime import Model

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnxruntime", "onnx", "onnxscript")), reason="needs the extra onnx"
)
NAME = "cr-k"  # of short scans: its spectra may be unknown at the end


SLOW = pytest.mark.slow  # the export takes some 20 s


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a shipped model with a file for ONNX Runtime."""
    out = tmp_path_factory.mktemp("models") / NAME
    said = run_command("models", "export", NAME, "--out", out, code=0).stdout
    assert said.startswith(f"{out / 'model.onnx'}: answers within ")
    return out


@pytest.fixture
def listed(tmp_path) -> Path:
    """A copy of a shipped model whose card lists a file for ONNX Runtime, which is none."""
    folder = Path(shutil.copytree(cards.find(NAME), tmp_path / NAME))
    (folder / "model.onnx").write_bytes(b"no network")
    files = {"model.onnx": cards.sha256_of(folder / "model.onnx")}
    cards.write_card(folder, cards.read_card(folder).model_copy(update={"files": files}))
    return folder


def spectra(count: int) -> np.ndarray:
    return plausible_spectra(served_of(cards.find(NAME)), count).numpy()


@SLOW
def test_an_export_adds_a_file_and_its_hash_to_the_card(exported):
    before, after = cards.read_card(cards.find(NAME)), cards.verify(exported)
    assert after.files == {"model.onnx": cards.sha256_of(exported / "model.onnx")}
    assert after.model_copy(update={"files": {}}) == before
    assert {file.name for file in exported.iterdir()} == {"README.md", "card.yaml", "model.onnx", "model.ts"}
    assert [file.name for file in exported.parent.iterdir()] == [NAME]


@SLOW
@pytest.mark.parametrize("count", [1, 3, CPU_BATCH_ROWS, CPU_BATCH_ROWS + 1, 40])
def test_the_engines_agree_for_batches_of_any_size(exported, count):
    x = spectra(count)
    one, other = (Model(exported, "cpu", engine).forward(x) for engine in ("torchscript", "onnx"))
    assert other.dtype == np.float64
    assert other.shape == one.shape
    assert np.isfinite(one).all()
    np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)


@SLOW
def test_a_ruined_frame_does_not_touch_its_neighbours(exported):
    model, x = Model(exported, "cpu", "onnx"), spectra(4)
    expected = model.forward(x)
    x[2] = np.nan
    np.testing.assert_allclose(np.delete(model.forward(x), 2, 0), np.delete(expected, 2, 0), rtol=0, atol=1e-6)


@SLOW
def test_one_thread_and_several_agree(exported):
    x = spectra(16)
    one, two = (Model(exported, "cpu", "onnx", threads).forward(x) for threads in (1, 2))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)


@SLOW
def test_the_agent_answers_without_torch(exported):
    code = (
        "import sys, numpy as np; from xas_agent.app.config import load_config\n"
        "from xas_agent.app.wiring import load_models\n"
        f"(model,) = load_models(load_config({{'model': {{'use': [{str(exported)!r}], 'engine': 'onnx'}}}}))\n"
        "(found,) = model.estimate(np.ones((1, len(model.grid)), np.float32))\n"
        "print(len(found.descriptors), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(cards.read_card(exported).descriptors)), "False"]
    assert done.stderr == ""


@SLOW
@pytest.mark.parametrize("command", ["standards", "rules"])
def test_what_judges_models_and_rules_answers_without_torch(exported, tmp_path, command):
    energy = np.concatenate(
        [np.arange(5840.0, 5980.0, 4.0), np.arange(5980.0, 6080.0, 0.5), np.arange(6080, 6400, 4.0)]
    )
    mu = 0.3 + np.arctan((energy - 6004) / 1.5) / np.pi + 0.6 * np.exp(-(((energy - 6008) / 3) ** 2))
    (tmp_path / "files").mkdir()
    np.savetxt(tmp_path / "files" / "oxide.dat", np.column_stack([energy, mu]), header="energy mu")
    (tmp_path / "standards.csv").write_text("file,element,compound,OS,CN\nfiles/oxide.dat,Cr,Cr2O3,3,6\n")
    trigger = {"kind": "threshold", "quantity": "OS", "above": 3.3, "window_frames": 1}
    config = {"model": {"use": [str(exported)], "engine": "onnx"}, "rules": [{"name": "line", "trigger": trigger}]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    args = {
        "standards": ["standards", "standards.csv", "--config", "config.yaml"],
        "rules": ["rules", "test", "config.yaml", "files", "--element", "Cr", "--edge", "K"],
    }[command]
    line = [sys.executable, "-X", "importtime", "-m", "xas_agent", *args]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "onnxruntime" in imported
    assert "torch" not in imported


@SLOW
def test_models_verify_compares_the_engines(exported):
    said = run_command("models", "verify", exported, code=0).stdout.splitlines()
    assert said[:2] == [f"{NAME}: {exported / name} matches its card" for name in ("model.ts", "model.onnx")]
    assert said[2].startswith(f"{NAME}: model.onnx answers within ")


@SLOW
def test_models_verify_fails_if_an_engine_answers_differently(exported, tmp_path):
    import onnx
    from onnx import numpy_helper

    folder = Path(shutil.copytree(exported, tmp_path / NAME))
    network = onnx.load(folder / "model.onnx")
    for weight in network.graph.initializer:  # weights of another training would be as wrong
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.ndim == 3:
            weight.CopyFrom(numpy_helper.from_array(values * np.float32(1.1), weight.name))
    onnx.save(network, folder / "model.onnx")
    card = yaml.safe_load((folder / "card.yaml").read_text())
    card["files"]["model.onnx"] = cards.sha256_of(folder / "model.onnx")
    (folder / "card.yaml").write_text(yaml.safe_dump(card, allow_unicode=True))
    done = run_command("models", "verify", folder, code=1)
    assert "the answers differ by more than 1e-04: export the model again" in done.stderr


def test_a_changed_file_is_refused(listed):
    (listed / "model.onnx").write_bytes((listed / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"model\.onnx: SHA-256 .* does not match its card .*export it again"):
        Model(listed)
    (listed / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"no model\.onnx beside card\.yaml"):
        Model(listed)


def test_a_file_that_is_no_network_is_one_message(listed):
    with pytest.raises(ModelError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        Model(listed, "cpu", "onnx")


@pytest.mark.parametrize("at_once", [True, False])
def test_a_model_without_the_file_is_refused_at_the_start(at_once):
    config = load_config({"model": {"use": [NAME], "engine": "onnx"}})
    with pytest.raises(ModelError, match=rf"its card lists no model\.onnx.*xas-agent models export {NAME} --out"):
        load_models(config, at_once=at_once)


def test_the_engine_does_not_run_on_a_gpu(listed):
    with pytest.raises(ModelError, match="found device cuda; the engine onnx runs on the CPU"):
        Model(listed, "cuda", "onnx")


def test_an_installed_model_is_exported_to_a_new_folder_only(listed):
    assert "name a folder with --out" in run_command("models", "export", NAME, code=2).stderr
    assert (
        "exists; name a folder that does not" in run_command("models", "export", NAME, "--out", listed, code=2).stderr
    )


def test_the_name_of_a_file_stays_in_its_folder(listed):
    card = yaml.safe_load((listed / "card.yaml").read_text())
    card["files"] = {"../model.onnx": "0" * 64}
    (listed / "card.yaml").write_text(yaml.safe_dump(card, allow_unicode=True))
    with pytest.raises(ModelError, match=r"files"):
        cards.read_card(listed)
