import itertools
import json
import pickle
from contextlib import suppress
from typing import Any

import event_model
import msgpack
import numpy as np
import pytest
import suitcase.jsonl
import suitcase.msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs import capture_logs

from xas_agent.adapters.files.documents import DocumentFileError, FileSink, FileSource


def one_run(events: int = 3) -> list[tuple[str, Any]]:
    run = event_model.compose_run(metadata={"element": "Ni", "E0": np.float64(8333.0)})
    key = {"source": "", "dtype": "array", "shape": [4]}
    stream = run.compose_descriptor(name="primary", data_keys={"mu": key})
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for n in range(events):
        mu = np.array([0.1, 1 / 3, np.pi * 1e-300, n])
        documents.append(("event", stream.compose_event(data={"mu": mu}, timestamps={"mu": 1e9 + 0.1 * n})))
    return [*documents, ("stop", run.compose_stop())]


def plain(documents) -> list:
    """Documents as JSON has them."""
    return json.loads(json.dumps(list(documents), cls=event_model.NumpyEncoder))


def write(path, documents) -> None:
    sink = FileSink(path)
    for name, doc in documents:
        sink(name, doc)
    sink.close()


def test_reads_what_suitcase_jsonl_writes(tmp_path):
    documents = one_run()
    (path,) = suitcase.jsonl.export(documents, tmp_path)["all"]
    assert plain(FileSource(path)) == plain(documents)


def test_reads_what_suitcase_msgpack_writes(tmp_path):
    documents = one_run()
    (path,) = suitcase.msgpack.export(documents, tmp_path)["all"]
    read = list(FileSource(path))
    assert [name for name, _ in read] == ["start", "descriptor", *["event_page"] * 3, "stop"]
    pages = [doc for name, doc in read if name == "event_page"]
    events = [event for page in pages for event in event_model.unpack_event_page(page)]
    assert plain(events) == plain(doc for name, doc in documents if name == "event")


def test_writes_the_documents_of_suitcase_jsonl_line_by_line(tmp_path):
    documents = one_run()
    write(tmp_path / "ours.jsonl", documents)
    (theirs,) = suitcase.jsonl.export(documents, tmp_path)["all"]
    ours = (tmp_path / "ours.jsonl").read_text()
    assert [json.loads(line) for line in ours.splitlines()] == list(map(json.loads, theirs.read_text().splitlines()))


def test_writes_the_records_of_suitcase_msgpack(tmp_path):
    documents = [(name, doc) for name, doc in one_run() if name != "event"]  # of which suitcase makes pages
    write(tmp_path / "ours.msgpack", documents)
    (theirs,) = suitcase.msgpack.export(documents, tmp_path)["all"]
    assert (tmp_path / "ours.msgpack").read_bytes() == theirs.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    values=st.lists(st.floats(), min_size=1),
    suffix=st.sampled_from([".jsonl", ".msgpack"]),
    metadata=st.dictionaries(st.text(), st.text() | st.integers(-(2**63), 2**63) | st.booleans() | st.none()),
)
def test_what_is_written_is_read_again_exactly(tmp_path, values, suffix, metadata):
    mu = np.array(values)
    doc = {"uid": "a", "data": {"mu": mu, "first": mu[0]}, "metadata": metadata}
    write(tmp_path / f"run{suffix}", [("event", doc)] * 2)
    for name, read in FileSource(tmp_path / f"run{suffix}"):
        assert name == "event"
        np.testing.assert_array_equal(np.asarray(read["data"]["mu"], dtype=np.float64), mu)
        np.testing.assert_array_equal(read["data"]["first"], mu[0])
        assert read["metadata"] == metadata


@pytest.mark.parametrize("suffix", [".jsonl", ".msgpack"])
def test_each_document_can_be_read_as_soon_as_it_is_written(tmp_path, suffix):
    sink = FileSink(tmp_path / "new" / f"run{suffix}")
    for count, (name, doc) in enumerate(one_run(), 1):
        sink(name, doc)
        assert len(list(FileSource(sink.path))) == count
    sink.close()
    with pytest.raises(ValueError, match="closed"):
        sink("stop", {})


@pytest.mark.parametrize("suffix", [".jsonl", ".msgpack"])
def test_a_document_without_a_form_leaves_the_file_whole(tmp_path, suffix):
    sink = FileSink(tmp_path / f"run{suffix}")
    sink("start", {"uid": "a"})
    with pytest.raises(TypeError):
        sink("event", {"uid": "b", "data": object()})
    sink("stop", {"uid": "c"})
    sink.close()
    source = FileSource(sink.path)
    assert [doc["uid"] for _, doc in source] == ["a", "c"]
    assert source.malformed == 0


@pytest.mark.parametrize("suffix", [".jsonl", ".msgpack"])
@pytest.mark.parametrize("lost", [1, 20])
def test_a_record_cut_off_is_counted_and_skipped(tmp_path, suffix, lost):
    path = tmp_path / f"run{suffix}"
    write(path, one_run())
    path.write_bytes(path.read_bytes().rstrip(b"\n")[:-lost])
    source = FileSource(path)
    with capture_logs() as logs:
        assert [name for name, _ in source] == ["start", "descriptor", "event", "event", "event"]
    assert source.malformed == 1
    assert [log["event"] for log in logs] == ["record skipped"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data(), suffix=st.sampled_from([".jsonl", ".msgpack"]))
def test_damage_never_raises_anything_else(tmp_path, data, suffix):
    path = tmp_path / f"run{suffix}"
    write(path, one_run())
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, 1400))
    content[start : start + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=30))
    path.write_bytes(content or b" ")
    with suppress(DocumentFileError):  # the damage may have taken the first document too
        assert all(isinstance(doc, dict) for _, doc in FileSource(path))


def test_zero_bytes_of_a_file_that_was_cut_cost_no_document_and_are_told(tmp_path):
    path = tmp_path / "run.jsonl"
    lines = [json.dumps(document).encode() + b"\n" for document in plain(one_run())]
    path.write_bytes(lines[0] + lines[1] + bytes(300) + b"".join(lines[2:]))
    source = FileSource(path)
    with capture_logs() as logs:
        assert [name for name, _ in source] == [name for name, _ in one_run()]
    assert source.malformed == 1
    assert [(log["where"], log["detail"][:14]) for log in logs] == [("line 3", "300 zero bytes")]


def test_lines_that_are_no_documents_are_skipped(tmp_path):
    path = tmp_path / "run.jsonl"
    lines = [
        *map(json.dumps, plain(one_run())),
        "",
        "{}",
        '["start"]',
        '["begin", {}]',
        '["stop", []]',
        "[" * 100_000,
    ]
    path.write_text("\n".join(lines))
    source = FileSource(path)
    assert len(list(source)) == 6
    assert source.malformed == 5


def test_a_pickle_inside_msgpack_is_skipped_and_what_follows_is_read(tmp_path):
    path = tmp_path / "run.msgpack"
    array = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps(np.array([None]))}
    records = [("start", {"uid": "a"}), ("event", {"data": [array, {"n": 1}]}), ("stop", {"uid": "b"})]
    path.write_bytes(b"".join(map(msgpack.Packer().pack, records)))
    source = FileSource(path)
    assert list(source) == [records[0], records[2]]
    assert source.malformed == 1


def test_close_ends_the_iteration(tmp_path):
    write(tmp_path / "run.jsonl", one_run())
    source = FileSource(tmp_path / "run.jsonl")
    documents = iter(source)
    next(documents)
    source.close()
    assert list(documents) == []


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("run.jsonl", b"", "an empty file"),
        ("run.msgpack", b"", "an empty file"),
        ("run.h5", b"x", "the suffix '.h5'"),
        ("run", b"x", "the suffix ''"),
        ("run.jsonl", None, "No such file"),
        ("run", None, "No such file"),
        ("folder.jsonl", ..., "a folder"),
        ("run.jsonl", b"energy,mu\n1,2\n", "found no document"),
        ("run.msgpack", b"energy,mu\n1,2\n", "found no document"),
    ],
)
def test_what_is_no_documents_file_says_so(tmp_path, name, content, found):
    path = tmp_path / name
    if content is ...:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DocumentFileError) as error:
        list(FileSource(path))
    for part in (str(path), found, "expected a documents file: .jsonl"):
        assert part in str(error.value)


def test_a_sink_of_another_kind_is_refused(tmp_path):
    with pytest.raises(DocumentFileError, match=r"found the suffix '\.csv'"):
        FileSink(tmp_path / "run.csv")


@pytest.mark.parametrize("suffix", ["jsonl", "msgpack"])
def test_a_source_goes_on_after_any_document(suffix: str, tmp_path):
    path, documents = tmp_path / f"run.{suffix}", one_run()
    write(path, documents)
    for count in range(len(documents)):
        source = FileSource(path)
        first = list(itertools.islice(source, count))
        following = FileSource(path)
        following.resume(json.loads(json.dumps(source.position)) if count else {})
        assert plain([*first, *following]) == plain(documents)
