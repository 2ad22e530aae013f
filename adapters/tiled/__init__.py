"""A Tiled catalogue of Bluesky runs: its runs as documents, and the agent's documents as runs.

Any Tiled server that stores Bluesky runs is suitable, such as ``tiled serve catalog``; it needs no plugin.
"""

from .documents import documents_of
from .filled import FilledSource
from .server import SCHEMES
from .sink import TiledDestination, TiledSink
from .source import TiledEndpoint, TiledSource

__all__ = ["SCHEMES", "FilledSource", "TiledDestination", "TiledEndpoint", "TiledSink", "TiledSource", "documents_of"]
