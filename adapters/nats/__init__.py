"""Documents over NATS JetStream, in the format of bluesky-nats."""

from .endpoint import SCHEMES, NATSEndpoint
from .sink import NATSDestination, NATSSink
from .source import NATSShared, NATSSource

__all__ = ["SCHEMES", "NATSDestination", "NATSEndpoint", "NATSShared", "NATSSink", "NATSSource"]
