"""Control of bluesky-queueserver: plans are queued, and the running one is paused, resumed, stopped or aborted."""

from .control import QueueServerControl
from .link import QueueServerSettings

__all__ = ["QueueServerControl", "QueueServerSettings"]
