"""Documents as bytes: msgpack (with numpy arrays) or JSON; pickle only if the caller allows it."""

import json
import pickle
from functools import lru_cache
from typing import Any, Literal

import msgpack
import msgpack_numpy
import numpy as np
import pydantic_core

Serializer = Literal["msgpack", "json", "pickle"]

_ND, _COMPLEX = b"\x02nd", b"\x07complex"
"""Keys by which ``msgpack_numpy`` recognises its mappings, each preceded by the last byte of its length."""

_PICKLE_HINT = (
    "the publisher sends pickle; start it with serializer=msgpack.packb and default=msgpack_numpy.encode, "
    "or set allow_pickle for this endpoint"
)


class DecodeError(ValueError):
    """The bytes are not a document.

    Attributes
    ----------
    reason : str
        A short stable category for counting malformed messages.
    detail : str
        What was found.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def to_msgpack(value: Any) -> bytes:
    """Pack as bluesky-kafka and suitcase-msgpack do; arrays of Python objects become lists, never pickles.

    Raises
    ------
    TypeError
        msgpack cannot represent a part of ``value``.

    Examples
    --------
    >>> from_msgpack(to_msgpack({"I0": np.arange(3.0)}))
    {'I0': array([0., 1., 2.])}
    """
    return msgpack.Packer(default=_numpy_to_msgpack, use_bin_type=True).pack(value)


def to_plain_msgpack(value: Any) -> bytes:
    """Pack as bluesky-nats does, with arrays as lists, so that any msgpack reads it.

    Raises
    ------
    TypeError
        msgpack cannot represent a part of ``value``.

    Examples
    --------
    >>> from_msgpack(to_plain_msgpack({"I0": np.arange(3.0)}))
    {'I0': [0.0, 1.0, 2.0]}
    """
    return msgpack.Packer(default=_numpy_to_json, use_bin_type=True).pack(value)


def from_msgpack(payload: bytes, *, allow_pickle: bool = False) -> Any:
    """Unpack the output of ``to_msgpack`` or ``msgpack_numpy``.

    Raises
    ------
    DecodeError
        The payload contains an array of Python objects, which msgpack_numpy pickles.
    Exception
        msgpack and numpy raise many types of exception on bytes that are not msgpack.
    """
    if _ND not in payload and _COMPLEX not in payload:  # spares a call for each mapping
        return msgpack.unpackb(payload, raw=False, strict_map_key=False)
    hook = msgpack_numpy.decode if allow_pickle else numpy_from_msgpack
    return msgpack.unpackb(payload, raw=False, strict_map_key=False, object_hook=hook)


def to_json(value: Any) -> str:
    """Return one line of JSON; arrays become lists, and float64 values are exact.

    NaN and infinities are written as ``NaN``, ``Infinity`` and ``-Infinity``, as Python and suitcase-jsonl do.
    Python reads them back; a strict JSON parser refuses them.

    Raises
    ------
    TypeError
        JSON cannot represent a part of ``value``.

    Examples
    --------
    >>> to_json(["event", {"I0": np.float64(0.1), "mu": np.array([1.0, np.nan])}])
    '["event", {"I0": 0.1, "mu": [1.0, NaN]}]'
    """
    return _JSON.encode(value)


def to_json_line(value: Any) -> bytes:
    """Return the result of :func:`to_json` in UTF-8, without blanks and with an end of line, seven times as fast.

    Examples
    --------
    >>> to_json_line(["event", {"I0": np.float64(0.1), "mu": np.array([1.0, np.nan])}])
    b'["event",{"I0":0.1,"mu":[1.0,NaN]}]\\n'
    """
    try:
        return pydantic_core.to_json(value, inf_nan_mode="constants", fallback=_numpy_to_json) + b"\n"
    except pydantic_core.PydanticSerializationError:  # a text that is not Unicode, or a type without a JSON form
        return to_json(value).encode() + b"\n"


def encode(doc: dict[str, Any], serializer: Serializer) -> bytes:
    """Return a document as bytes; the caller decides whether pickle is allowed."""
    match serializer:
        case "msgpack":
            return to_msgpack(doc)
        case "json":
            return to_json(doc).encode()
        case "pickle":
            return pickle.dumps(doc)


def decode(payload: bytes, serializer: Serializer, *, allow_pickle: bool = False) -> dict[str, Any]:
    """Return the document in ``payload``.

    Parameters
    ----------
    payload : bytes
    serializer : str
        ``msgpack``, ``json`` or ``pickle``.
    allow_pickle : bool
        Whether a pickle is decoded, with any serializer.

    Returns
    -------
    dict

    Raises
    ------
    DecodeError
        The only exception, for any bytes.
    """
    pickled = payload[:1] == b"\x80" and _is_pickle(payload)
    if (pickled or serializer == "pickle") and not allow_pickle:
        raise DecodeError("pickle refused", _PICKLE_HINT)
    try:
        if pickled:
            doc = pickle.loads(payload)
        elif serializer == "msgpack":
            doc = from_msgpack(payload, allow_pickle=allow_pickle)
        elif serializer == "json":
            doc = json.loads(payload)
        else:
            raise DecodeError("undecodable", "not a pickle")
    except DecodeError:
        raise
    except Exception as error:  # decoders raise many types of exception on damaged bytes
        raise DecodeError("undecodable", f"{serializer}: {type(error).__name__}: {error}"[:300]) from error
    if not isinstance(doc, dict):
        raise DecodeError("undecodable", f"{serializer}: expected a mapping, found {type(doc).__name__}")
    return doc


def numpy_from_msgpack(obj: dict[Any, Any]) -> Any:
    """Decode numpy arrays and scalars, but no pickles; an ``object_hook`` of msgpack.

    Raises
    ------
    DecodeError
        The mapping is an array of Python objects.
    """
    # msgpack_numpy unpickles kind b"O", and would read the bytes of an object dtype of another kind as pointers.
    if b"nd" in obj and (obj.get(b"kind", b"") not in (b"", b"V") or _holds_objects(obj[b"type"])):
        raise DecodeError("pickle refused", "an array of Python objects, which msgpack_numpy pickles")
    return msgpack_numpy.decode(obj)


def _holds_objects(descr: Any) -> bool:
    """Return whether a dtype, given by its ``str`` or ``descr``, contains Python objects."""
    if isinstance(descr, list):
        return any(_holds_objects(kind) for _, kind, *_ in descr)
    return _is_object(descr)


@lru_cache(maxsize=64)
def _is_object(kind: str) -> bool:
    return np.dtype(kind).hasobject


def _is_pickle(payload: bytes) -> bool:
    """Return whether the bytes are a pickle of protocol 2 or later.

    No document begins like this: in msgpack 0x80 is an empty map and would be the whole message; no JSON text begins
    with it.
    """
    return len(payload) > 2 and payload[0] == 0x80 and payload[1] <= pickle.HIGHEST_PROTOCOL


def _numpy_to_msgpack(obj: Any) -> Any:
    if isinstance(obj, np.ndarray) and obj.dtype.hasobject:
        return obj.tolist()
    return msgpack_numpy.encode(obj)


def _numpy_to_json(obj: Any) -> Any:
    if isinstance(obj, np.ndarray | np.generic):
        return obj.tolist()
    raise TypeError(f"{type(obj).__name__} has no JSON form")


_JSON = json.JSONEncoder(default=_numpy_to_json)
