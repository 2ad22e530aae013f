"""Documents as bytes: msgpack (with numpy arrays) or JSON, and pickle only for who allows it by name."""

import json
import pickle
from functools import lru_cache
from typing import Any, Literal

import msgpack
import msgpack_numpy
import numpy as np

Serializer = Literal["msgpack", "json", "pickle"]

_PICKLE_HINT = (
    "publisher sends pickle: start it with serializer=msgpack.packb and default=msgpack_numpy.encode, "
    "or set allow_pickle for this endpoint"
)


class DecodeError(ValueError):
    """Bytes that are not a document.

    Attributes:
        reason: a short stable category, what malformed messages are counted by.
        detail: what was found.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def to_msgpack(value: Any) -> bytes:
    """Pack as bluesky-kafka and suitcase-msgpack do; arrays of Python objects become lists, never pickles.

    Raises:
        TypeError: something in ``value`` has no msgpack form.

    >>> from_msgpack(to_msgpack({"I0": np.arange(3.0)}))
    {'I0': array([0., 1., 2.])}
    """
    return msgpack.Packer(default=_numpy_to_msgpack, use_bin_type=True).pack(value)


def from_msgpack(payload: bytes, *, allow_pickle: bool = False) -> Any:
    """Unpack what ``to_msgpack`` or ``msgpack_numpy`` packed.

    Raises:
        DecodeError: an array of Python objects, which msgpack_numpy carries as a pickle.
        Exception: whatever msgpack or numpy raises on bytes that are not msgpack.
    """
    hook = msgpack_numpy.decode if allow_pickle else numpy_from_msgpack
    return msgpack.unpackb(payload, raw=False, strict_map_key=False, object_hook=hook)


def to_json(value: Any) -> str:
    """One line of JSON; arrays become lists, float64 survives exactly.

    NaN and infinities are written ``NaN``, ``Infinity``, ``-Infinity``, as Python and suitcase-jsonl do:
    Python reads them back, a strict JSON parser does not.

    Raises:
        TypeError: something in ``value`` has no JSON form.

    >>> to_json(["event", {"I0": np.float64(0.1), "mu": np.array([1.0, np.nan])}])
    '["event", {"I0": 0.1, "mu": [1.0, NaN]}]'
    """
    return json.dumps(value, default=_numpy_to_json)


def encode(doc: dict[str, Any], serializer: Serializer) -> bytes:
    """A document as bytes; what allows pickle is the caller's business."""
    match serializer:
        case "msgpack":
            return to_msgpack(doc)
        case "json":
            return to_json(doc).encode()
        case "pickle":
            return pickle.dumps(doc)


def decode(payload: bytes, serializer: Serializer, *, allow_pickle: bool = False) -> dict[str, Any]:
    """The document in ``payload``.

    With ``allow_pickle``, a pickle is taken whatever the serializer.

    Raises:
        DecodeError: nothing else, whatever the bytes.
    """
    pickled = _is_pickle(payload)
    if (pickled or serializer == "pickle") and not allow_pickle:
        raise DecodeError("pickle refused", _PICKLE_HINT)
    try:
        if pickled:
            doc = pickle.loads(payload)
        elif serializer == "json":
            doc = json.loads(payload)
        elif serializer == "msgpack":
            doc = from_msgpack(payload, allow_pickle=allow_pickle)
        else:
            raise DecodeError("undecodable", "not a pickle")
    except DecodeError:
        raise
    except Exception as error:  # decoders raise anything at all on damaged bytes
        raise DecodeError("undecodable", f"{serializer}: {type(error).__name__}: {error}"[:300]) from error
    if not isinstance(doc, dict):
        raise DecodeError("undecodable", f"{serializer}: expected a mapping, found {type(doc).__name__}")
    return doc


def numpy_from_msgpack(obj: dict[Any, Any]) -> Any:
    """msgpack ``object_hook``: numpy arrays and scalars, but no pickles.

    Raises:
        DecodeError: the mapping holds an array of Python objects.
    """
    # msgpack_numpy unpickles kind b"O", and takes the bytes of an object dtype of another kind for pointers.
    if b"nd" in obj and (obj.get(b"kind", b"") not in (b"", b"V") or _holds_objects(obj[b"type"])):
        raise DecodeError("pickle refused", "an array of Python objects, which msgpack_numpy pickles")
    return msgpack_numpy.decode(obj)


def _holds_objects(descr: Any) -> bool:
    """Whether a dtype, as numpy's ``str`` or ``descr`` gives it, has Python objects anywhere in it."""
    if isinstance(descr, list):
        return any(_holds_objects(kind) for _, kind, *_ in descr)
    return _is_object(descr)


@lru_cache(maxsize=64)
def _is_object(kind: str) -> bool:
    return np.dtype(kind).hasobject


def _is_pickle(payload: bytes) -> bool:
    """Whether this is a pickle of protocol 2 or later.

    No document begins so: 0x80 is msgpack's empty map, which would be the whole message, and no JSON text.
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
