"""Documents and control over ZMQ."""

from .control import ControlServer, ZMQControl
from .documents import ZMQEndpoint, ZMQSink, ZMQSource
from .socket import Endpoint

__all__ = [
    "ControlServer",
    "Endpoint",
    "ZMQControl",
    "ZMQEndpoint",
    "ZMQSink",
    "ZMQSource",
]
