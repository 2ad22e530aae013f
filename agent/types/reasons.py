"""Reasons for setting data aside, and flags on frames that are answered.

The values are stable, since they are published: ``quality`` Events carry a :class:`Reason`, ``descriptors`` Events
carry :class:`Flag` values. Code compares members, never text. The tables in ``docs/reference`` are generated from the
sentences below.
"""

from enum import StrEnum
from typing import NamedTuple, Self


class _Explained(StrEnum):
    """A stable text with an explanation and a remedy."""

    meaning: str
    remedy: str

    def __new__(cls, value: str, meaning: str, remedy: str) -> Self:
        member = str.__new__(cls, value)
        member._value_, member.meaning, member.remedy = value, meaning, remedy
        return member


class Reason(_Explained):
    """Why a frame, a stream, a run or a document was set aside."""

    # Documents and runs.
    MALFORMED_DOCUMENT = (
        "malformed document",
        "A document has no uid, lacks a required key, or has a value of the wrong type.",
        "Validate the publisher's documents with event-model.",
    )
    JOINED_LATE = (
        "joined late",
        "The agent began to listen after the run had started and did not receive its start or descriptor.",
        "Start the agent before the run; it reads the next run in full.",
    )
    LATE = (
        "late",
        "An Event arrived after its sweep or its run had been closed.",
        "Look for a slow or buffering proxy between the beamline and the agent.",
    )
    DESCRIPTOR_NEVER_CAME = (
        "descriptor never came",
        "The descriptor of some Events did not arrive within the agent's waiting time.",
        "Check the connection; on ZMQ PUB/SUB a subscriber that joins late misses descriptors.",
    )
    TOO_MANY_HELD_BACK = (
        "too many held back",
        "More documents wait for their start or descriptor than the agent keeps.",
        "Check that the publisher sends starts and descriptors before Events.",
    )
    EVENTS_LOST = (
        "events lost",
        "The RunStop announces more Events than arrived.",
        "Check the network and the publisher's high-water mark.",
    )
    QUEUE_FULL = (
        "queue full",
        "Documents arrived faster than the agent served them, and the queue was full.",
        "Raise serving.queue and serving.queue_mb, lower the rate, or run the agent on a faster machine.",
    )
    OVERLOAD = (
        "overload",
        "Frames arrived faster than the agent answers them; only every n-th was answered.",
        "Lower the rate, run the agent on a faster machine or a GPU, or raise serving.max_latency_s.",
    )
    ESTIMATE_NOT_FINITE = (
        "estimate not finite",
        "The model gave a number that is not finite.",
        "Look at the aligned spectrum; report it with the model if the spectrum is sound.",
    )
    INTERNAL_ERROR = (
        "internal error",
        "The agent failed on this frame; the log has the traceback.",
        "Report it with the log and, if possible, the documents.",
    )
    # Fields.
    FIELD_MISSING = (
        "field missing",
        "A field that the config names, or that the stream announces, is not in the data.",
        "Correct the names under fields in the config.",
    )
    AMBIGUOUS_FIELDS = (
        "ambiguous fields",
        "Several fields of the stream match one quantity.",
        "Name the right field under fields in the config.",
    )
    NO_ABSORPTION_FIELDS = (
        "no absorption fields",
        "The stream has an energy, but no matching intensities or absorption.",
        "Name i0 with it or if, or mu, under fields in the config.",
    )
    NO_ENERGY = (
        "no energy",
        "A spectrum arrived without the energies of its points.",
        "Name the energy under fields in the config, or publish it as a separate stream.",
    )
    NO_ENERGY_RELATION = (
        "no energy relation",
        "The monochromator's position cannot be converted to energy: its relation or offset is unknown.",
        "Give fields.relation in the config, or its offset in the RunStart.",
    )
    ENERGY_AMBIGUOUS = (
        "energy ambiguous",
        "The run has several energy axes, and the spectrum does not name one of them.",
        "Publish the energies in the same Event as the spectrum.",
    )
    FIELDS_CHANGED = (
        "fields changed within a stream",
        "A new descriptor of the stream has other fields of a spectrum than the descriptor before it.",
        "Use another stream name for other detectors.",
    )
    EXTERNAL_DATA_NOT_READ = (
        "external data not read",
        "The spectra are in files, and no reader for these files is configured.",
        "Install the [assets] extra, or name a field with data in the documents.",
    )
    FILE_NOT_READABLE = (
        "file not readable",
        "A file that a document refers to is missing, late, refused or damaged.",
        "Check assets.roots and assets.wait_s, and that this machine sees the file.",
    )
    FLY_STREAM_MISSING = (
        "fly stream missing",
        "A fly scan lacks the stream of its intensities or of its monochromator.",
        "Correct the stream names under fly in the config.",
    )
    FLY_STREAMS_DO_NOT_FIT = (
        "fly streams do not fit",
        "The intensities and the energies of a fly scan do not overlap in time, or their tables have other columns.",
        "Check the clocks of both, and the columns under fly in the config.",
    )
    # Points of a spectrum.
    LENGTHS_DIFFER = (
        "lengths differ",
        "The energy and the intensities of a spectrum have different numbers of points.",
        "Check that the fields belong to one acquisition.",
    )
    SHAPE_DISAGREES = (
        "shape disagrees with descriptor",
        "A value is not the number, or the array of numbers, that the descriptor announces.",
        "Correct the data key's shape and dtype.",
    )
    NAN_IN_DATA = (
        "NaN in data",
        "Some energies or intensities are not finite.",
        "Check the detector's readout; a missing value costs its spectrum.",
    )
    ENERGY_NOT_FINITE = (
        "energy not finite",
        "Some energies of a file are not finite.",
        "Correct or remove these rows.",
    )
    ENERGY_NOT_MONOTONIC = (
        "energy not monotonic",
        "The energy changes direction too often for a division into sweeps.",
        "Check the energy readback; set fields.bin_ev for an encoder that jitters.",
    )
    ENERGY_NOT_POSITIVE = (
        "energy not positive",
        "The lowest energy is zero or negative.",
        "Check that the field is an absolute energy in eV.",
    )
    ENERGY_TOO_HIGH = (
        "energy too high",
        "The highest energy is beyond any absorption edge.",
        "Check the unit: eV or keV.",
    )
    TOO_FEW_POINTS = (
        "too few points",
        "The spectrum has too few points for XANES.",
        "Measure more points, or lower fields.min_points.",
    )
    TOO_MANY_POINTS = (
        "too many points",
        "A step scan did not change its direction within the largest number of points, or an Event has too many.",
        "Use one run per scan, or whole-spectrum Events with fewer points.",
    )
    POINTS_LOST = (
        "points lost",
        "Points of a step scan did not arrive: too many in total, or several in a row.",
        "Check the network and the publisher's high-water mark.",
    )
    TRUNCATED = (
        "truncated",
        "The first points of the scan were published before the agent listened.",
        "Start the agent before the run.",
    )
    SWEEP_CUT_SHORT = (
        "sweep cut short",
        "The run ended before the scan had all its planned points.",
        "Nothing, if the scan was stopped on purpose.",
    )
    RUN_NEVER_STOPPED = (
        "run never stopped",
        "No RunStop arrived; the last sweep may be incomplete.",
        "Check whether the plan failed or the connection broke.",
    )
    # Detectors.
    I0_NOT_POSITIVE = ("I0 not positive", "I0 has values of zero or less.", "Check the shutter and the dark current.")
    IT_NOT_POSITIVE = ("It not positive", "It has values of zero or less.", "Check the shutter and the dark current.")
    I0_DROPPED = ("I0 dropped", "There was no beam for several points.", "Measure again with beam.")
    IT_CONSTANT = ("It constant", "All values of It are equal.", "Check that the detector counts.")
    IF_CONSTANT = ("If constant", "All values of If are equal.", "Check that the detector counts.")
    IREF_CONSTANT = ("Iref constant", "All values of Iref are equal.", "Check that the detector counts.")
    I0_SATURATED = ("I0 saturated", "I0 is clipped at its maximum.", "Lower the gain or the flux.")
    IT_SATURATED = ("It saturated", "It is clipped at its maximum.", "Lower the gain or the flux.")
    IF_SATURATED = ("If saturated", "If is clipped at its maximum.", "Lower the gain or the flux.")
    IREF_SATURATED = ("Iref saturated", "Iref is clipped at its maximum.", "Lower the gain or the flux.")
    ABSORPTION_NOT_FINITE = (
        "absorption not finite",
        "The absorption computed from the intensities overflows.",
        "Check that the fields are intensities.",
    )
    # Model choice.
    NO_MODEL = (
        "no model",
        "No loaded model has this absorber and edge, or covers these energies.",
        "Load or train such a model, or name the element under fields in the config.",
    )
    SEVERAL_MODELS = (
        "several models",
        "Several loaded models match this spectrum.",
        "Name one of them with model.use in the config.",
    )
    # Alignment.
    DOES_NOT_COVER_THE_GRID = (
        "does not cover the grid",
        "The scan begins too late or ends too early for the model's grid.",
        "Measure the energy range that the message names.",
    )
    GAP_IN_THE_ENERGIES = (
        "gap in the energies",
        "Two neighbouring points within the grid are too far apart.",
        "Measure points in the gap, or raise alignment.max_gap_ev.",
    )
    NO_PRE_EDGE = (
        "no pre-edge",
        "Too few points lie before the edge to fit the pre-edge line.",
        "Start the scan earlier, or declare alignment.background.",
    )
    NO_POST_EDGE = (
        "no post-edge",
        "Too few points lie above the edge to fit the post-edge curve.",
        "Extend the scan, or declare alignment.background.",
    )
    NEGATIVE_EDGE_STEP = (
        "negative edge step",
        "The absorption falls at the edge.",
        "I0 and It may be exchanged: correct the fields.",
    )
    EDGE_STEP_WITHIN_NOISE = (
        "edge step within noise",
        "The edge step is too small for the noise.",
        "Count longer, or check that the sample is in the beam.",
    )
    REFERENCE_UPSIDE_DOWN = (
        "reference upside down",
        "The reference falls at the edge, so that μ contains the foil.",
        "It and Iref are exchanged: correct the fields.",
    )
    NOT_AN_ABSORPTION_SPECTRUM = (
        "not an absorption spectrum",
        "A point is many edge steps above or below the edge.",
        "Check the fields and the normalisation.",
    )
    NOT_WHAT_A_THICK_SAMPLE_SHOWS = (
        "not what a thick sample shows",
        "The fluorescence is higher than a thick sample of this composition can show.",
        "Correct alignment.self_absorption: formula, angles or thickness.",
    )


class Flag(_Explained):
    """A note on an answered frame."""

    OUT_OF_DISTRIBUTION = (
        "out of distribution",
        "The spectrum is unlike those that the model was trained on.",
        "Do not act on the descriptors; look at the spectrum.",
    )
    NO_FOIL_EDGE = (
        "no foil edge",
        "The reference channel shows no edge clear of its noise; the configured energy shift is used.",
        "Check the foil and the field of Iref; state Sample.reference: none where there is no foil.",
    )
    REFERENCE_UPSIDE_DOWN = (
        "reference upside down",
        "The reference falls at the edge; the configured energy shift, or that of earlier frames, is used.",
        "It and Iref may be exchanged: correct the fields.",
    )
    LARGE_FOIL_SHIFT = (
        "large foil shift",
        "The foil gives an unusually large energy shift.",
        "Check the monochromator's calibration and the foil's element.",
    )
    FOIL_HELD = (
        "foil held",
        "The frame has no foil; the energy shift of earlier frames is used.",
        "Nothing, if the foil is measured from time to time.",
    )
    FOIL_FORGOTTEN = (
        "foil forgotten",
        "No foil was measured for longer than alignment.foil.forget_s: the configured energy shift is used again, "
        "and the estimates may step against earlier frames of the sample, which a foil calibrated.",
        "Measure the foil, or set alignment.energy_shift_ev to its last shift.",
    )
    FOIL_OFF_ITS_COURSE = (
        "foil off its course",
        "The foil's edge jumped; the energy shift of earlier frames is used until more frames confirm the jump.",
        "Check whether the monochromator or the foil moved.",
    )
    BACKGROUND_HELD = (
        "background held",
        "The frame is too short to fit its background; the background of an earlier frame is used.",
        "Measure a longer frame from time to time.",
    )
    SHORT_SCAN = (
        "short scan",
        "The scan ends before the model's grid; the intervals are those of spectra that end there.",
        "Extend the scan to the end of the model's grid for narrower intervals.",
    )
    GLITCHES_REPAIRED = (
        "glitches repaired",
        "Single points far off the curve were replaced by interpolation.",
        "Nothing, if they are few; the alignment figure shows them.",
    )
    TOO_MANY_GLITCHES = (
        "too many glitches",
        "Too many points are far off the curve; no point was replaced.",
        "Look at the spectrum and check the detector.",
    )
    ENERGY_UNCERTAINTY_REUSED = (
        "energy uncertainty reused",
        "The agent was behind, or the model gave no number for the shifted spectrum: the part of the intervals that "
        "the energies cause is that of an earlier frame.",
        "Nothing, if it is rare; else lower the rate of frames or run the agent on a faster machine.",
    )
    SELF_ABSORPTION_CORRECTED = (
        "self-absorption corrected",
        "Self-absorption in a thick sample was corrected in the fluorescence.",
        "Check that formula and angles are those of the sample.",
    )
    SELF_ABSORPTION_LEFT_IN = (
        "self-absorption left in",
        "Self-absorption is only estimated, since correct is false.",
        "Set alignment.self_absorption.correct to remove it.",
    )
    SELF_ABSORPTION_NOT_KNOWN = (
        "self-absorption not known",
        "The formula does not contain the absorber.",
        "Correct alignment.self_absorption.formula.",
    )
    NOT_FLUORESCENCE = (
        "not fluorescence, not corrected",
        "A correction of self-absorption is configured, but the frame is not fluorescence.",
        "Set mu_is_fluorescence for an absorption that was computed from fluorescence.",
    )

    ANCHORS_DISAGREE = (
        "anchors disagree",
        "The known values of several anchors do not fit one line through the estimates within their errors.",
        "Check the known values and the frames that show them; the intervals are wider by the misfit.",
    )

    @classmethod
    def of(cls, published: str) -> "tuple[Flag, ...]":
        """Return the flags in the text of a ``descriptors`` Event; no flag's text contains that of another.

        >>> [flag.name for flag in Flag.of("not fluorescence, not corrected, foil held")]
        ['FOIL_HELD', 'NOT_FLUORESCENCE']
        """
        return tuple(flag for flag in cls if flag in published)


class Refusal(NamedTuple):
    """The reason, with a detail, why one spectrum is set aside.

    >>> str(Refusal(Reason.TOO_FEW_POINTS, "7 points, at least 10 needed"))
    'too few points: 7 points, at least 10 needed'
    """

    reason: Reason
    detail: str = ""
    """Found and expected values, with units."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)
