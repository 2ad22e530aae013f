"""Output files of a session: documents.jsonl, descriptors.csv, decisions.csv, summary.json, operando.png."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...adapters.files import FileSink
from ...agent.types import InputError
from .recorder import NAME_COLUMNS, Recorder, Truth


class OutputFolder:
    """Output folder of a session; documents are written at once, tables and figure at the end."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.folder = folder
        self.documents = FileSink(folder / "documents.jsonl")

    def finish(self, recorder: Recorder, summary: Mapping[str, Any], truth: Truth | None) -> None:
        """Close the documents and write the tables, the summary and the figure."""
        self.documents.close()
        _table(self.folder / "descriptors.csv", recorder.columns(), recorder.frames)
        names = ["time", "run_uid", *NAME_COLUMNS, "id", "rule", "action", "args", "status", "status_reason"]
        names += ["confidence", "reason"]
        _table(self.folder / "decisions.csv", names, recorder.decisions)
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        if recorder.frames:
            from .figures import draw_operando

            draw_operando(self.folder / "operando.png", recorder, truth)


def make_folder(folder: Path) -> None:
    """Create a folder unless it exists; raise InputError if this fails or the path is a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be used as the output folder: {error.strerror}") from None


def _table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
