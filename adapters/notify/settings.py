"""The destinations of notifications."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, model_validator

from ...agent.types import Settings
from ..loopback import is_loopback


class EmailSettings(Settings):
    """An email through an SMTP server."""

    model_config = ConfigDict(populate_by_name=True)

    host: str = Field(min_length=1)
    """SMTP server."""
    port: int = Field(default=587, ge=1, le=65535)
    """Port of the server."""
    starttls: bool = True
    """Whether to encrypt the connection and verify the server's certificate."""
    sender: str = Field(alias="from", min_length=1)
    """Address of the sender."""
    to: tuple[str, ...] = Field(min_length=1)
    """Addresses of the recipients."""
    user: str | None = None
    """User at the server; unset: no log-in."""
    password_env: str | None = None
    """Environment variable that holds the user's password, which is never in a config."""

    @model_validator(mode="after")
    def _user_has_a_password(self) -> Self:
        if (self.user is None) != (self.password_env is None):
            raise ValueError("user and password_env, or neither")
        return self


class Destination(Settings):
    """A destination of notifications: one of ``webhook``, ``email`` and ``command``."""

    webhook: str | None = None
    """URL that receives the notification as JSON, by POST."""
    email: EmailSettings | None = None
    """An email that contains the notification as text."""
    command: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Program and arguments of a command that reads the notification as JSON from stdin; no shell is used."""
    insecure: bool = False
    """Whether to send to another machine without encryption: to a webhook ``http://…``, or by email without
    ``starttls``."""
    timeout_s: float = Field(default=10.0, gt=0)
    """Time within which the destination must accept the notification, s."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(kind is not None for kind in (self.webhook, self.email, self.command)) != 1:
            raise ValueError("one of webhook, email and command")
        if self.webhook is not None:
            _check_url(self.webhook)
        if self.email is not None and not (self.email.starttls or self.insecure or is_loopback(self.email.host)):
            raise ValueError(f"starttls to {self.email.host}, which is another machine, or insecure: true")
        if self.webhook is not None and not (self.encrypted or self.insecure or self.local):
            raise ValueError(f"https to {self.host}, which is another machine, or insecure: true")
        return self

    @property
    def host(self) -> str:
        """Host of the webhook."""
        return urlsplit(self.webhook or "").hostname or ""

    @property
    def encrypted(self) -> bool:
        """Whether the scheme of the webhook encrypts."""
        return urlsplit(self.webhook or "").scheme == "https"

    @property
    def local(self) -> bool:
        """Whether the webhook is on this machine."""
        return is_loopback(self.host)

    @property
    def name(self) -> str:
        """Name for messages, without parts that may be secret, such as the path of a webhook.

        >>> Destination(webhook="https://hooks.example.org/T0/secret").name
        'webhook hooks.example.org'
        """
        if self.email is not None:
            return f"email {', '.join(self.email.to)}"
        return f"command {self.command[0]}" if self.command else f"webhook {self.host}"


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError if it is not a valid port
    except ValueError:
        raise ValueError("a URL, https://HOST/PATH") from None
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
        raise ValueError("a URL without user and password, https://HOST/PATH")
