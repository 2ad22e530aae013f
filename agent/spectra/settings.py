"""The settings of the alignment of measured spectra."""

from pydantic import Field

from ..types import Settings
from .background import Background
from .foil import FoilSettings
from .glitches import GlitchSettings
from .normalisation import NormalisationSettings
from .self_absorption import SelfAbsorptionSettings


class AlignmentSettings(Settings):
    """The normalisation of measured spectra. Windows are in eV relative to the tabulated edge."""

    pre_edge_ev: tuple[float, float] = (-150.0, -18.0)
    """Window of the pre-edge line, eV from the tabulated edge; the part that the scan does not cover is ignored."""
    pre_edge_latest_ev: float = -12.0
    """End of the pre-edge window, eV from the tabulated edge, for a scan that begins too late for ``pre_edge_ev``. It
    lies before the pre-edge peaks even if the energies are off by some electronvolts."""
    post_edge_ev: tuple[float, float] = (40.0, 600.0)
    """Window of the post-edge curve, eV from the tabulated edge; the part that the scan does not cover is ignored."""
    post_edge_clear_ev: float = 150.0
    """Start of a long scan's post-edge window, eV, above the XANES oscillations, which would distort the curve. A
    shorter scan's window begins at 0.3 of its range above the edge, but not below ``post_edge_ev``."""
    e0_search_ev: tuple[float, float] = (-12.0, 28.0)
    """Window in which E0, the maximum of the smoothed derivative, is sought, eV from the tabulated edge."""
    e0_smoothing_ev: float = 1.0
    """σ of the Gaussian that smooths the derivative, eV."""
    max_extrapolation_ev: float = 3.0
    """Largest distance by which the grid may extend beyond the measured energies, at either end, eV."""
    max_gap_ev: float = 8.0
    """Widest gap that is allowed between measured energies inside the grid, eV."""
    min_step_to_noise: float = 8.0
    """Smallest edge step that counts as an edge, in σ of the noise."""
    min_points: int = 4
    """Smallest number of points in the pre-edge window and in the post-edge window."""
    calibrate_on_reference: bool = True
    """Whether to shift each frame so that its reference foil's E0 lies at the tabulated edge."""
    usual_foil_shift_ev: float = 5.0
    """Shift, eV, above which a calibration is flagged; it is still applied."""
    foil: FoilSettings = FoilSettings()
    """Settings for following the foil from frame to frame."""
    energy_shift_ev: float = 0.0
    """Shift, eV, to add to the energies of frames without a foil: the monochromator's last measured calibration."""
    energy_sd_ev: float = Field(default=1.0, ge=0)
    """Standard deviation of the energies of frames without a foil, eV; it widens the intervals. Frames with a foil
    have the standard deviation of its reading."""
    normalisation: NormalisationSettings = NormalisationSettings()
    """Pre- and post-edge fit. If one of pre1, pre2, norm1 and norm2 (eV from E0) is given, these replace the windows
    above; Larch's rules determine those not given."""
    self_absorption: SelfAbsorptionSettings | None = None
    """The sample, for the correction of its fluorescence for self-absorption; unset: no correction."""
    gross_glitches: bool = True
    """Whether to repair points that deviate by about 5 % of the edge step or more, before the fits."""
    glitches: GlitchSettings | None = None
    """A search as fine as the noise allows, also against earlier frames; it replaces ``gross_glitches``. Unset:
    off."""
    background: Background | None = None
    """Background of scans without enough pre- or post-edge; unset: earlier frames of the series supply it if
    possible."""
