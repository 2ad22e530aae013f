"""Settings of the journal."""

from typing import Literal

from ...agent.types import Settings


class JournalSettings(Settings):
    """What ``journal.sqlite`` of the output folder outlives."""

    durability: Literal["flush", "fsync", "off"] = "flush"
    """``flush``: an accepted document outlives the end of the agent, whatever ends it. ``fsync``: it also outlives a
    power failure, at the cost of a write to the disk per batch. ``off``: there is no journal, and a session that was
    killed cannot go on."""
