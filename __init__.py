"""xas-agent: understands X-ray absorption data while the experiment runs, and acts on it."""

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .adapters.formats import read_spectra
    from .app.agent import XASAgent
    from .app.config import load_config
    from .app.notebook import infer, plot_alignment, plot_series, read_session, widget

__all__ = [
    "XASAgent",
    "__version__",
    "infer",
    "load_config",
    "plot_alignment",
    "plot_series",
    "read_session",
    "read_spectra",
    "widget",
]

_HOMES = {
    "XASAgent": ".app.agent",
    "infer": ".app.notebook",
    "load_config": ".app.config",
    "plot_alignment": ".app.notebook",
    "plot_series": ".app.notebook",
    "read_session": ".app.notebook",
    "read_spectra": ".adapters.formats",
    "widget": ".app.notebook",
}


def __getattr__(name: str) -> Any:
    # To import the package must not import torch, bluesky or pandas until they are needed.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
