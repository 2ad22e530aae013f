"""Documents and control over ZMQ."""

from .authentication import ControlEndpoint
from .control import ZMQControl, cause_of
from .control_server import ControlServer, Request, RequestServer
from .documents import ZMQEndpoint, ZMQSink, ZMQSource
from .keys import CLIENTS, REVOKED, make_keys, make_secret, public_keys, revoke
from .socket import Endpoint

__all__ = [
    "CLIENTS",
    "REVOKED",
    "ControlEndpoint",
    "ControlServer",
    "Endpoint",
    "Request",
    "RequestServer",
    "ZMQControl",
    "ZMQEndpoint",
    "ZMQSink",
    "ZMQSource",
    "cause_of",
    "make_keys",
    "make_secret",
    "public_keys",
    "revoke",
]
