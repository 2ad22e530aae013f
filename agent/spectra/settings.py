"""What a user may say of how measured spectra are aligned."""

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
    """Window of the pre-edge line; what the scan does not reach is left out."""
    post_edge_ev: tuple[float, float] = (40.0, 600.0)
    """Window of the post-edge curve; what the scan does not reach is left out."""
    post_edge_clear_ev: float = 150.0
    """Where a long scan's post-edge window begins: it needs no help from the XANES oscillations, which would pull
    the curve. A shorter scan's begins at 0.3 of its reach above the edge, but not below the window."""
    e0_search_ev: tuple[float, float] = (-12.0, 28.0)
    """Where E0, the maximum of the smoothed derivative, is looked for."""
    e0_smoothing_ev: float = 1.0
    """σ of the Gaussian that smooths the derivative."""
    max_extrapolation_ev: float = 3.0
    """How far the grid may reach beyond the measured energies, at either end."""
    max_gap_ev: float = 8.0
    """The widest gap between measured energies inside the grid."""
    min_step_to_noise: float = 8.0
    """An edge step of fewer σ of the noise than this is no edge."""
    min_points: int = 4
    """Fewest points in the pre-edge and in the post-edge window."""
    calibrate_on_reference: bool = True
    """Move each frame so that its reference foil's E0 stands at the tabulated edge."""
    usual_foil_shift_ev: float = 5.0
    """A larger shift is applied too, but flagged."""
    foil: FoilSettings = FoilSettings()
    """How the foil is followed from frame to frame."""
    energy_shift_ev: float = 0.0
    """Added to the energies where no foil tells: the monochromator's calibration, as it was last measured."""
    energy_sd_ev: float = Field(default=1.0, ge=0)
    """Standard deviation of the energies there, which widens the intervals; with a foil it is the foil's own."""
    normalisation: NormalisationSettings = NormalisationSettings()
    """In the field's own names. Where one of pre1, pre2, norm1 and norm2 is given, relative to E0, it takes the place
    of the windows above, and what is not given is found as Larch finds it."""
    self_absorption: SelfAbsorptionSettings | None = None
    """The compound whose fluorescence is corrected for self-absorption in a thick sample; None: leave it."""
    gross_glitches: bool = True
    """Repair points that stand off by some 5 % of the edge step and more, before anything is fitted."""
    glitches: GlitchSettings | None = None
    """In place of that, a search as fine as the noise allows, and against earlier frames; None: none."""
    background: Background | None = None
    """Declared for scans without enough pre- or post-edge; None: held from earlier frames of the series, if any."""
