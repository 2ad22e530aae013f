"""Finds the data keys in external files that the spectra of a stream need."""

from collections.abc import Iterable, Mapping
from typing import Any

from .resolve import StreamFields, UnreadableStream, resolve
from .settings import FieldSettings


def external_keys_of_spectra(
    fields: FieldSettings, descriptor: Mapping[str, Any], start: Mapping[str, Any]
) -> frozenset[str] | UnreadableStream:
    """Return the external data keys that a descriptor's spectra need.

    Returns
    -------
    frozenset of str
        Data keys; empty if the stream has no spectra or the documents hold them completely.
    UnreadableStream
        The spectra cannot be read even with the external data.
    """
    all_keys: Mapping[str, Mapping[str, Any]] = descriptor["data_keys"]
    external = frozenset(key for key, about in all_keys.items() if about.get("external"))
    if not external:
        return frozenset()
    if isinstance(inside := resolve(fields, descriptor, start), StreamFields):
        return inside.used & external
    filled = resolve(fields, mark_filled(descriptor, external), start)
    if isinstance(filled, StreamFields):
        return filled.used & external
    return filled if isinstance(filled, UnreadableStream) else frozenset()


def mark_filled(descriptor: Mapping[str, Any], filled: Iterable[str]) -> dict[str, Any]:
    """Return the descriptor as it reads once the external keys ``filled`` are in its Events."""
    filled = set(filled)
    keys = {
        key: {k: v for k, v in about.items() if k != "external"} if key in filled else about
        for key, about in descriptor["data_keys"].items()
    }
    return {**descriptor, "data_keys": keys}
