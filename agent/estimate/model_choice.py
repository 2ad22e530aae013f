"""Chooses the model that serves a spectrum."""

from collections.abc import Sequence

import numpy as np

from ..types import ELEMENTS, Array, Estimator, Reason, Refusal, edge_ev

# A scan of an edge begins at most this far above it (FEFF rows begin at their first rise), and ends beyond it.
_MAX_START_ABOVE_EV, _MIN_END_ABOVE_EV = 20.0, 20.0
# Windows below and above an edge; if a scan covers several edges, their mean absorptions are compared.
_WINDOW_START_EV, _WINDOW_END_EV = 10.0, 60.0
_MIN_STEP_PART = 0.5  # relative to the highest step; a lower step is not the measured edge
_WITH_K_EDGE = ELEMENTS[14:70]  # elements whose K edges beamlines measure


def choose_model(
    models: Sequence[Estimator], energy: Array, mu: Array, element: str | None, edge: str | None
) -> Estimator | Refusal:
    """Choose the model of the named absorber and edge or, without names, of the edge that the spectrum shows.

    Parameters
    ----------
    models : available models
    energy : (M,) energies, eV, rising
    mu : (M,) absorption in any unit
    element, edge : names in the document or from the user, or None

    Returns
    -------
    The model, or a refusal with ``NO_MODEL`` or ``SEVERAL_MODELS``
    """
    if element is not None:
        fits = [m for m in models if m.absorber == element and edge in (None, m.edge_name)]
    else:
        fits = [m for m in models if _covers(energy, m.edge.edge_ev)]
        if len(fits) > 1:
            # A long EXAFS scan covers edges of other elements, but only its own edge shows a step.
            steps = np.array([_rise(energy, mu, m.edge.edge_ev) for m in fits])
            fits = [m for m, step in zip(fits, steps, strict=True) if step > _MIN_STEP_PART * steps.max()]
    if len(fits) == 1:
        return fits[0]
    named = element is not None
    wanted = " ".join(filter(None, (element, edge))) if named else f"{energy[0]:.1f}…{energy[-1]:.1f} eV"
    if not fits:
        if element is None and (found := _absorber_of(energy, mu)):
            wanted = f"{found} K ({wanted})"
        loaded = ", ".join(f"{m.absorber} {m.edge_name}" for m in models) or "none"
        return Refusal(Reason.NO_MODEL, f"no model for {wanted}; loaded are {loaded}")
    return Refusal(Reason.SEVERAL_MODELS, f"{', '.join(m.name for m in fits)} all fit {wanted}")


def check_model(model: Estimator, energy: Array, mu: Array, element: str | None) -> Estimator | Refusal:
    """Return the model, or a refusal with ``NO_MODEL`` if the spectrum does not show the model's edge.

    Parameters
    ----------
    model : model that the document or the user names
    energy : (M,) energies, eV, rising
    mu : (M,) absorption in any unit
    element : name in the document or from the user, or None
    """
    if _covers(energy, model.edge.edge_ev):
        return model
    is_for = f"{model.name} is for {model.absorber}, with its {model.edge_name} edge at {model.edge.edge_ev:.0f} eV"
    named = None if element == model.absorber else element
    if found := named or _absorber_of(energy, mu):
        return Refusal(Reason.NO_MODEL, f"this spectrum is {found}; {is_for}")
    return Refusal(Reason.NO_MODEL, f"this spectrum covers {energy[0]:.0f}…{energy[-1]:.0f} eV; {is_for}")


def _covers(energy: Array, edge: float) -> bool:
    return bool(energy[0] - _MAX_START_ABOVE_EV < edge < energy[-1] - _MIN_END_ABOVE_EV)


def _absorber_of(energy: Array, mu: Array) -> str | None:
    """Return the element whose K edge shows the largest rise of the spectrum; None if it shows no edge."""
    rises = {
        element: _rise(energy, mu, ev) for element in _WITH_K_EDGE if _covers(energy, ev := edge_ev(element, "K"))
    }
    if not rises:
        return None
    found = max(rises, key=lambda element: rises[element])
    return found if rises[found] > _MIN_STEP_PART * float(np.ptp(mu)) else None


def _rise(energy: Array, mu: Array, edge_ev: float) -> float:
    below = mu[(energy > edge_ev - _WINDOW_END_EV) & (energy < edge_ev - _WINDOW_START_EV)]
    above = mu[(energy > edge_ev + _WINDOW_START_EV) & (energy < edge_ev + _WINDOW_END_EV)]
    return float(above.mean() - below.mean()) if len(below) and len(above) else 0.0
