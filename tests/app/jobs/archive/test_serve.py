"""Tests that a backfill gives the numbers of the live agent, however it is divided."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from archives import documents, write_table
from event_model import pack_event_page

from xas_agent import XASAgent, load_config
from xas_agent.adapters.files import FileSink
from xas_agent.agent.types import Estimator
from xas_agent.app.config import Config
from xas_agent.app.jobs.archive.backfill import Backfill
from xas_agent.app.jobs.archive.plan import parts_of
from xas_agent.app.jobs.archive.serve import write_part
from xas_agent.app.jobs.archive.work import Part, Work, WorkFailed
from xas_agent.app.jobs.infer import infer_files
from xas_agent.app.wiring import load_models

FRAMES, PART_ROWS = 460, 400
TOLERANCE = 1e-6


def config() -> Config:
    return load_config({"model": {"use": ["co-k"], "threads": 1}})


@cache
def models() -> Sequence[Estimator]:
    return load_models(config())


def work(folder: Path, **known: Any) -> Work:
    return Work(config(), str(folder), models={model.name: model.sha256 for model in models()}, **known)


def table_of(folder: Path, part: Part, **known: Any) -> list[dict[str, Any]]:
    return pq.read_table(folder / write_part(work(folder, **known), part).file).to_pylist()


def live() -> list[dict[str, Any]]:
    """The agent's answers to the documents of the archive, in the order of the frames.

    They come in one page: the network rounds a frame otherwise in another batch, and how Events meet in batches
    depends on the load of the machine.
    """
    answers: list[tuple[str, dict[str, Any]]] = []
    order: dict[str, int] = {}
    agent = XASAgent(config(), models())
    agent.live = False
    agent.subscribe(lambda name, doc: answers.append((name, doc)))
    events: list[dict[str, Any]] = []
    for name, doc in documents(0, FRAMES):
        if name == "event":
            order[doc["uid"]] = len(order)
            events.append(doc)
            continue
        if name == "stop":
            agent("event_page", dict(pack_event_page(*events)))
        agent(name, doc)
    assert agent.wait(120)
    agent.close()
    found = [doc["data"] for name, doc in answers if name == "event" and "ood_score" in doc["data"]]
    assert len(found) == FRAMES
    return sorted(found, key=lambda data: order[data["frame_uid"]])


def differences(rows: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The largest difference of each number that both have."""
    keys = [k for k, v in answers[0].items() if isinstance(v, float) and isinstance(rows[0].get(k), float)]
    found = {key: max(abs(row[key] - answer[key]) for row, answer in zip(rows, answers, strict=True)) for key in keys}
    assert {"OS_mean", "OS_lo", "OS_sd_frame", "e0_ev", "foil_shift_ev", "ood_score"} <= found.keys()
    return found


def test_the_numbers_of_the_live_agent(tmp_path):
    table = write_table(tmp_path / "in" / "a.parquet", 0, FRAMES)
    answers = live()
    parts = list(parts_of(Backfill([str(table)], config(), PART_ROWS).sources, lambda piece: False, PART_ROWS))
    assert len(parts) == 2
    rows = [row for part in parts for row in table_of(tmp_path, part)]
    assert [row["index"] for row in rows] == list(range(FRAMES))
    off = {key: value for key, value in differences(rows, answers).items() if value > TOLERANCE}
    assert not off
    assert [row["flags"] for row in rows] == [answer["flags"] for answer in answers]
    # Without the spectra before it, the second part would begin with a foil of its own.
    alone = table_of(tmp_path, replace(parts[1], lead=()))
    assert differences(alone, answers[PART_ROWS:])["foil_shift_ev"] > 1e-3


def test_documents_give_the_same_numbers(tmp_path):
    sink = FileSink(tmp_path / "run.msgpack")
    for name, doc in documents(0, 60):
        sink(name, doc)
    sink.close()
    table = write_table(tmp_path / "a.parquet", 0, 60)
    of_table, of_documents = (
        table_of(tmp_path, Part(tuple(Backfill([str(path)], config()).sources)))
        for path in (table, tmp_path / "run.msgpack")
    )
    assert [row["index"] for row in of_documents] == list(range(60))
    assert max(differences(of_documents, of_table).values()) <= TOLERANCE
    assert {row["sample"] for row in of_documents} == {"cell"}


def test_computed_spectra_as_infer_gives_them(tmp_path):
    feff = Path(__file__).resolve().parents[4] / "data" / "feff" / "co_k.npz"
    rows = table_of(tmp_path, Part(tuple(Backfill([str(feff)], config()).sources)), theory=True)
    answers = infer_files([feff], config(), theory=True)
    assert [row["id"] for row in rows] == [answer["id"] for answer in answers]
    assert "PSGO" in rows[0]
    for row, answer in zip(rows, answers, strict=True):
        assert row["OS_mean"] == pytest.approx(answer["OS"]["mean"], abs=TOLERANCE)
        assert row["OS"] == answer["OS"]["value"]


def test_what_cannot_be_served_is_a_row_with_its_reason(tmp_path):
    table = write_table(tmp_path / "a.parquet", 0, 5, broken=frozenset({2}))
    (tmp_path / "b.xdi").write_text("no numbers\n")
    found = Part(tuple(Backfill([str(table), str(tmp_path / "b.xdi"), str(tmp_path)], config()).sources))
    written = write_part(work(tmp_path), found)
    rows = pq.read_table(tmp_path / written.file).to_pylist()
    assert [(Path(row["source"]).name, row["index"], row["reason"]) for row in rows] == [
        *(("a.parquet", k, rows[2]["reason"] if k == 2 else "") for k in range(5)),
        ("b.xdi", 0, "file not readable"),
    ]
    assert rows[2]["reason"]
    assert rows[2]["OS_mean"] is None
    assert "no numbers" not in rows[5]["detail"]
    assert rows[5]["detail"]
    assert sum(written.set_aside.values()) == 2
    assert written.rows == 6


def test_names_of_files_that_are_no_utf8_are_written_out(tmp_path):
    table = write_table(tmp_path / "a.parquet", 0, 1).rename(tmp_path / os.fsdecode(b"a\xff.parquet"))
    (tmp_path / os.fsdecode(b"b\xfe.xdi")).write_text("no numbers\n")
    (tmp_path / "in").mkdir()
    for file in (table, *tmp_path.glob("*.xdi")):
        file.rename(tmp_path / "in" / file.name)
    rows = table_of(tmp_path, Part(tuple(Backfill([str(tmp_path / "in")], config()).sources)))
    assert [Path(row["source"]).name for row in rows] == [r"a\udcff.parquet", r"b\udcfe.xdi"]
    assert 2 < rows[0]["OS_mean"] < 4
    assert rows[1]["reason"] == "file not readable"


def test_units_and_provenance_are_in_the_schema(tmp_path):
    table = write_table(tmp_path / "a.parquet", 0, 2)
    part = Part(tuple(Backfill([str(table)], config()).sources))
    written = write_part(work(tmp_path, about={"config_sha256": "c"}), part)
    schema = pq.read_schema(tmp_path / written.file)
    units = {field.name: (field.metadata or {}).get(b"unit", b"").decode() for field in schema}
    assert (units["OS_mean"], units["e0_ev"], units["OS_p"], units["time"]) == ("e", "eV", "dimensionless", "s")
    assert b'"co-k": "' + models()[0].sha256.encode() in schema.metadata[b"xas_agent"]
    assert b'"config_sha256": "c"' in schema.metadata[b"xas_agent"]
    assert b'"torch": ' in schema.metadata[b"xas_agent"]


def test_a_worker_with_other_models_does_nothing(tmp_path):
    table = write_table(tmp_path / "a.parquet", 0, 2)
    part = Part(tuple(Backfill([str(table)], config()).sources))
    with pytest.raises(WorkFailed, match=r"other models than this command \(co-k\)"):
        write_part(replace(work(tmp_path), models={"co-k": "0" * 64}), part)
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]
