"""Reads the sample, number and file of a run, and the series of its frames."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field, field_validator

from ..types import Scan, Settings, as_count
from .run_start import read_text

_SAMPLE_NAMES = ("sample_name", "sample.name", "Sample.name", "XDI.Sample.name", "sample")
_FILE_KEYS = ("file", "filename", "file_name", "interp_filename", "XDI._filename")


class SeriesSettings(Settings):
    """Assigns runs to series; a series holds the frames of one sample in time order."""

    key: tuple[str, ...] = Field(default=("sample_uid", *_SAMPLE_NAMES), min_length=1)
    """RunStart keys that name the sample, nested or dotted as in ``XDI.Sample.name``; the first one with a value
    counts. A run without any of them forms its own series; with ``uid``, every run does."""

    @field_validator("key", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _read_one_key(cls, key: Any) -> Any:
        return (key,) if isinstance(key, str) else key


def read_scan(start: Mapping[str, Any], series: SeriesSettings) -> Scan:
    """Return the sample, number and file in a RunStart.

    >>> read_scan({"sample": {"name": "NiO"}, "scan_id": 7}, SeriesSettings())
    Scan(series='NiO', sample='NiO', scan_id=7, file='')
    """
    key = read_text(start, series.key)
    key = "" if key == start.get("uid") else key
    return Scan(
        series=key,
        sample=read_text(start, _SAMPLE_NAMES) or key,
        scan_id=as_count(start.get("scan_id")) or 0,
        file=_without_folder(read_text(start, _FILE_KEYS)),
    )


def with_file(scan: Scan, data: Mapping[str, Any]) -> Scan:
    """Return the scan of an Event, with the Event's own file if it names one."""
    file = data.get("file")
    return replace(scan, file=_without_folder(file)) if isinstance(file, str) and file else scan


def _without_folder(path: str) -> str:
    return re.split(r"[\\/]", path)[-1]
