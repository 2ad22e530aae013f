"""Failures that end a session; a command reports each in one line."""


class BeamlineFailed(RuntimeError):  # noqa: N818  named after the event
    """The simulated beamline ended before it started to publish."""


class SourceFailed(RuntimeError):  # noqa: N818  named after the event
    """The source ended early."""
