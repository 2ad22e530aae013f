"""The settings of the HTTP endpoint for the agent's health."""

import re
from typing import Self

from pydantic import model_validator

from ..agent.types import Settings
from .loopback import is_loopback

_ADDRESS = re.compile(r"(?:http://)?(?P<host>[^\s/:\[\]]+|\[[\da-fA-F:]+\]):(?P<port>\d{1,5})/?")


class HealthSettings(Settings):
    """The HTTP endpoint that reports the agent's health."""

    address: str
    """``HOST:PORT`` that serves ``/healthz``, ``/readyz`` and ``/metrics``; port 0 selects a free port."""
    allow_remote: bool = False
    """Whether other machines may reach the address. Anybody who reaches it can read the numbers of frames, decisions
    and losses, without a password."""

    @model_validator(mode="after")
    def _address_is_local(self) -> Self:
        match = _ADDRESS.fullmatch(self.address)
        if match is None or int(match["port"]) > 65535:
            raise ValueError(f"found {self.address!r}, expected HOST:PORT")
        if not self.allow_remote and not is_loopback(self.host):
            raise ValueError(
                f"found {self.address!r}, which other machines reach; expected 127.0.0.1:{self.port}, "
                "or allow_remote: true (--health-remote)"
            )
        return self

    @property
    def host(self) -> str:
        return self._match()["host"].strip("[]")

    @property
    def port(self) -> int:
        return int(self._match()["port"])

    def _match(self) -> re.Match[str]:
        match = _ADDRESS.fullmatch(self.address)
        assert match is not None
        return match
