"""The folder of an agent that shares runs has each frame once, however often the agent answers it."""

import csv
import json
import signal
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path

import archives
import pytest
from deadline import wait_until
from forked import command
from kafka_cluster import Cluster

from xas_agent.adapters.kafka import KafkaDestination, KafkaShared, KafkaSink, KafkaSource
from xas_agent.agent.types import Document

FRAMES = 12


def numbers(documents: list[Document]) -> Counter[int]:
    """How often each frame is answered in documents of agents."""
    rows = (doc["data"] for name, doc in documents if name == "event" and "OS_mean" in doc["data"])
    return Counter(row["frame_seq_num"] for row in rows)


def read(path: Path) -> list[Document]:
    written = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in written if line.endswith("\n")]


@pytest.mark.slow
def test_frames_that_a_killed_agent_had_not_delivered_are_in_its_folder_once(tmp_path: Path) -> None:
    cluster, out = Cluster(), tmp_path / "out"
    docs, answers = (cluster.make_topic(name, 1) for name in ("docs", "answers"))
    config = tmp_path / "config.yaml"
    source = f"{{address: '{docs}', begin: all, lease_s: 2}}"
    config.write_text(f"model: {{use: [co-k]}}\nkafka: {source}\npublish: {{kafka: '{answers}'}}\n")
    with closing(KafkaSink(KafkaDestination(address=docs))) as sink:
        for name, doc in archives.documents(0, FRAMES):
            if name != "stop":
                sink(name, doc)
    cluster.confirm(False)

    def agent() -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(command("run", "--config", config, "--out", out), stderr=log)

    killed = agent()
    wait_until(lambda: numbers(read(out / "documents.jsonl")).total() == FRAMES)
    killed.kill()
    killed.wait()
    cluster.confirm(True)
    resumed = agent()
    published: list[Document] = []
    reader = KafkaSource(KafkaShared(address=answers, begin="all", group="test"))
    for document in reader:
        published.append(document)
        if numbers(published).total() == FRAMES:
            break
    reader.close()
    reader.release()
    resumed.send_signal(signal.SIGTERM)
    resumed.wait()
    once = Counter(range(1, FRAMES + 1))
    assert numbers(published) == once
    assert numbers(read(out / "documents.jsonl")) == once
    with (out / "descriptors.csv").open() as file:
        assert Counter(int(row["seq_num"]) for row in csv.DictReader(file)) == once
    assert json.loads((out / "summary.json").read_text())["frames"] == FRAMES
