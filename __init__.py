"""xas-agent: understands X-ray absorption data while the experiment runs, and acts on it."""

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .app.agent import XASAgent
    from .app.config import load_config

__all__ = ["XASAgent", "__version__", "load_config"]


def __getattr__(name: str) -> Any:
    # Importing the package must not import torch or bluesky until they are needed.
    if name == "XASAgent":
        from .app.agent import XASAgent

        return XASAgent
    if name == "load_config":
        from .app.config import load_config

        return load_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
