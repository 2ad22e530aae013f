"""Settings of the journal."""

from typing import Literal

from ...agent.types import Settings


class JournalSettings(Settings):
    """The events that ``journal.sqlite`` in the output folder survives."""

    durability: Literal["flush", "fsync", "off"] = "flush"
    """``flush``: an accepted document survives the end of the agent, whatever its cause. ``fsync``: it also survives
    a power failure, at the cost of one write to the disk per batch. ``off``: there is no journal, and a killed
    session cannot continue."""
