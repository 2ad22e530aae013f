"""Documents and control over ZMQ."""

from .authentication import ControlEndpoint
from .control import ZMQControl
from .control_server import ControlServer
from .documents import ZMQEndpoint, ZMQSink, ZMQSource
from .keys import CLIENTS, REVOKED, make_keys, make_secret, public_keys, revoke
from .socket import Endpoint

__all__ = [
    "CLIENTS",
    "REVOKED",
    "ControlEndpoint",
    "ControlServer",
    "Endpoint",
    "ZMQControl",
    "ZMQEndpoint",
    "ZMQSink",
    "ZMQSource",
    "make_keys",
    "make_secret",
    "public_keys",
    "revoke",
]
