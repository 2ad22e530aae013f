"""Which of the loaded models serves a spectrum."""

from collections.abc import Sequence

import numpy as np

from ..types import Array, Estimator, Reason, Refusal

BELOW_EV, ABOVE_EV = 20.0, 20.0
"""A scan of an edge begins at most this far above it (FEFF rows begin at their first rise), and ends beyond it."""
NEAR_EV, FAR_EV = 10.0, 60.0
"""Where the absorption below and above an edge is compared, to tell which of two edges in one scan it is of."""


def choose(
    models: Sequence[Estimator], energy: Array, mu: Array, element: str | None, edge: str | None
) -> Estimator | Refusal:
    """The model of the named absorber and edge or, where none is named, of the edge that the energies show.

    Parameters
    ----------
    energy, mu : (M,) eV, rising, and absorption
    element, edge : as the document or the user names them, or None

    Returns
    -------
    The model, or why there is none: ``NO_MODEL`` or ``SEVERAL_MODELS``.
    """
    if element is not None:
        fits = [m for m in models if m.absorber == element and edge in (None, m.edge_name)]
        wanted = f"{element} {edge or 'edge'}"
    else:
        fits = [m for m in models if energy[0] - BELOW_EV < m.edge.edge_ev < energy[-1] - ABOVE_EV]
        wanted = f"{energy[0]:.1f}…{energy[-1]:.1f} eV"
        if len(fits) > 1:
            # A long EXAFS scan runs over other elements' edges: only its own shows a step.
            steps = np.array([_rise(energy, mu, m.edge.edge_ev) for m in fits])
            fits = [m for m, step in zip(fits, steps, strict=True) if step > 0.5 * steps.max()]
    if len(fits) == 1:
        return fits[0]
    if not fits:
        have = ", ".join(f"{m.absorber} {m.edge_name}" for m in models) or "none"
        return Refusal(Reason.NO_MODEL, f"no model for {wanted}; loaded are {have}")
    return Refusal(Reason.SEVERAL_MODELS, f"{', '.join(m.name for m in fits)} all fit {wanted}")


def _rise(energy: Array, mu: Array, edge_ev: float) -> float:
    below = mu[(energy > edge_ev - FAR_EV) & (energy < edge_ev - NEAR_EV)]
    above = mu[(energy > edge_ev + NEAR_EV) & (energy < edge_ev + FAR_EV)]
    return float(above.mean() - below.mean()) if len(below) and len(above) else 0.0
