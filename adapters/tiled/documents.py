"""Reads the documents of a run in a catalogue.

The exporter of bluesky-tiled-plugins creates them. It is meant to run within the server, but a stock server lacks it;
here it runs on the client, on nodes that behave like those of the server.
"""

import io
import json
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from ...agent.types import Document


def documents_of(run: Any, rows: MutableMapping[str, int]) -> Iterator[Document]:
    """Yield the documents of a run, with the Events that were not yielded before.

    Parameters
    ----------
    run : BlueskyRun
        Client of the run.
    rows : mapping
        Number of Events that have been yielded, by stream; updated once all documents are yielded.
    """
    if not any(spec.name == "BlueskyRun" and spec.version.startswith("3.") for spec in run.specs):
        yield from run.documents()  # MongoDB: the server of such runs has the documents themselves
        return
    from bluesky_tiled_plugins.exporters import json_seq_exporter

    read: dict[str, int] = {}
    node = _Run(run.base, rows, read)
    for text in _drive(json_seq_exporter("application/json-seq", node, node.metadata(), _all)):
        item = json.loads(text.strip("\x1e\n"))
        yield item["name"], item["doc"]
    rows.update(read)


class _Node:
    """A client with the interface of the server's adapters, as far as the exporter uses it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.specs = client.specs

    def metadata(self) -> dict[str, Any]:
        return self._client.item["attributes"]["metadata"]

    async def keys_range(self, offset: int, limit: int | None) -> list[str]:
        return list(self._client)

    async def data_sources(self, include_assets: bool) -> list[Any]:
        # The client's sources hold their structure as JSON.
        return [replace(source, structure=self._client.structure()) for source in self._client.data_sources()]


class _Run(_Node):
    def __init__(self, client: Any, rows: Mapping[str, int], read: MutableMapping[str, int]) -> None:
        super().__init__(client)
        self._rows = rows
        self._read = read
        """Number of Events of each stream after this reading."""

    async def lookup_adapter(self, segments: list[str]) -> _Node:
        name = segments[0]
        child = self._client[name]
        child = getattr(child, "base", child)
        if not any(spec.name == "BlueskyEventStream" for spec in child.specs):
            return _Run(child, self._rows, self._read)  # the layout of 2025, with a container for all streams
        stream = _Stream(child, self._rows.get(name, 0))
        self._read[name] = stream.rows
        return stream


class _Stream(_Node):
    """A stream that shows only its Events from row ``first`` on."""

    def __init__(self, client: Any, first: int) -> None:
        super().__init__(client)
        tables = [part for part in client.values() if part.structure_family == "table"]
        table = _joined([_table(part) for part in tables]) if tables else ()
        self.rows = len(table)
        self._parts: dict[str, _Node] = {}
        # Listed again: the writer extends arrays before the table, so that they now have all its rows.
        for key, part in client.items():
            if self.metadata()["data_keys"].get(key, {}).get("external"):
                self._parts[key] = _Node(part)
            elif part.structure_family != "table" and self.rows > first:
                self._parts[key] = _Read(part, part[first : self.rows])
        if self.rows > first:
            self._parts["internal"] = _Read(tables[0], table[first:])

    async def keys_range(self, offset: int, limit: int | None) -> list[str]:
        return list(self._parts)

    async def lookup_adapter(self, segments: list[str]) -> _Node:
        return self._parts[segments[0]]


class _Read(_Node):
    def __init__(self, client: Any, values: Any) -> None:
        super().__init__(client)
        self._values = values

    async def read(self) -> Any:
        return self._values


def _table(client: Any) -> Any:
    """Return a table as a DataFrame; ``client.read()`` uses dask, which turns short arrays into texts."""
    import pyarrow as pa

    with io.BytesIO() as buffer:
        client.export(buffer, format="application/vnd.apache.arrow.file")
        return pa.ipc.open_file(buffer.getvalue()).read_pandas()


def _joined(tables: list[Any]) -> Any:
    """Return each row of a stream once: its writer divides a wide table and may send rows again."""
    import pandas as pd

    complete = min(map(len, tables))
    table = pd.concat([table.iloc[:complete].reset_index(drop=True) for table in tables], axis=1)
    return table.drop_duplicates("seq_num", ignore_index=True)


async def _all(node: _Node) -> _Node:
    return node


def _drive(texts: AsyncIterator[str]) -> Iterator[str]:
    """Yield from an asynchronous iterator that never waits, without a loop, as one may already run in this thread."""
    while True:
        try:
            texts.__anext__().__await__().__next__()
        except StopIteration as done:
            yield done.value
        except StopAsyncIteration:
            return
