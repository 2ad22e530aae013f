"""Documents and control over ZMQ."""

from .authentication import ControlEndpoint
from .control import ZMQControl
from .control_server import ControlServer
from .documents import ZMQEndpoint, ZMQSink, ZMQSource
from .socket import Endpoint

__all__ = [
    "ControlEndpoint",
    "ControlServer",
    "Endpoint",
    "ZMQControl",
    "ZMQEndpoint",
    "ZMQSink",
    "ZMQSource",
]
