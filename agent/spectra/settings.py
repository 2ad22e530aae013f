"""The settings of the alignment of measured spectra."""

from pydantic import Field

from ..types import Settings
from .background import Background
from .foil import FoilSettings
from .glitches import GlitchSettings
from .normalisation import NormalisationSettings
from .self_absorption import SelfAbsorptionSettings


class AlignmentSettings(Settings):
    """How a measured spectrum is normalised. Windows are in eV relative to the tabulated edge."""

    pre_edge_ev: tuple[float, float] = (-150.0, -18.0)
    """Window of the pre-edge line, eV from the tabulated edge; the part that the scan does not cover is ignored."""
    pre_edge_latest_ev: float = -12.0
    """End of the pre-edge window of a scan that begins too late for ``pre_edge_ev``, eV from the tabulated edge:
    before the pre-edge peaks, also where energies are some electronvolts off."""
    post_edge_ev: tuple[float, float] = (40.0, 600.0)
    """Window of the post-edge curve, eV from the tabulated edge; the part that the scan does not cover is ignored."""
    post_edge_clear_ev: float = 150.0
    """Start of a long scan's post-edge window, eV, beyond the XANES oscillations, which would pull the curve. A
    shorter scan's window begins at 0.3 of its range above the edge, but not below ``post_edge_ev``."""
    e0_search_ev: tuple[float, float] = (-12.0, 28.0)
    """Window in which E0, the maximum of the smoothed derivative, is searched, eV from the tabulated edge."""
    e0_smoothing_ev: float = 1.0
    """σ of the Gaussian that smooths the derivative, eV."""
    max_extrapolation_ev: float = 3.0
    """How far the grid may extend beyond the measured energies, at either end, eV."""
    max_gap_ev: float = 8.0
    """Widest gap allowed between measured energies inside the grid, eV."""
    min_step_to_noise: float = 8.0
    """Smallest edge step that counts as an edge, in σ of the noise."""
    min_points: int = 4
    """Smallest number of points in the pre-edge window and in the post-edge window."""
    calibrate_on_reference: bool = True
    """Whether to shift each frame so that its reference foil’s E0 lies at the tabulated edge."""
    usual_foil_shift_ev: float = 5.0
    """A larger shift is applied too, but flagged, eV."""
    foil: FoilSettings = FoilSettings()
    """How the foil is followed from frame to frame."""
    energy_shift_ev: float = 0.0
    """Added to the energies of frames without a foil, eV: the monochromator's last measured calibration."""
    energy_sd_ev: float = Field(default=1.0, ge=0)
    """Standard deviation of the energies of frames without a foil, eV; it widens the intervals. With a foil, the
    foil's own is used."""
    normalisation: NormalisationSettings = NormalisationSettings()
    """Pre- and post-edge fit. If one of pre1, pre2, norm1 and norm2 (eV from E0) is given, they replace the windows
    above, and the ones not given are found as Larch finds them."""
    self_absorption: SelfAbsorptionSettings | None = None
    """The sample whose fluorescence is corrected for self-absorption; unset: no correction."""
    gross_glitches: bool = True
    """Whether to repair points that deviate by about 5 % of the edge step and more, before the fits."""
    glitches: GlitchSettings | None = None
    """A search as fine as the noise allows, also against earlier frames, in place of ``gross_glitches``; unset:
    off."""
    background: Background | None = None
    """Background of scans without enough pre- or post-edge; unset: taken from earlier frames of the series, if
    any."""
