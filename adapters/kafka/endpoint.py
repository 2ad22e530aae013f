"""A Kafka topic: its brokers and security."""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, FilePath, field_validator

from ...agent.types import InputError, Settings, get_logger
from ..errors import EndpointUnreachable

log = get_logger()

SCHEMES = ("kafka",)
CALL_S = 8.0
"""Longest wait for one answer of a broker, s; shorter than the time after which a subscriber counts as blocked."""


class KafkaEndpoint(Settings):
    """A Kafka topic of documents, in the format of bluesky-kafka."""

    address: str
    """``kafka://HOST:PORT[,HOST:PORT…]/TOPIC``, as in ``kafka://localhost:9092/bmm.bluesky.runengine.documents``."""
    security: Mapping[str, str | int | float | bool] = Field(default_factory=dict)
    """Further settings of librdkafka, such as ``security.protocol``, ``sasl.mechanism`` and ``sasl.username``."""
    password_from: str = "KAFKA_PASSWORD"
    """Environment variable that holds the ``sasl.password``; if it is not set, none is sent."""
    ca_file: FilePath | None = None
    """Certificates that the brokers may have; unset: those of the system."""
    connect_timeout_s: float = Field(default=10.0, gt=0)
    """Longest wait for the answer of a broker, s."""

    @field_validator("address")
    @classmethod
    def _is_a_uri(cls, address: str) -> str:
        parts = urlsplit(address)
        topic = parts.path.strip("/")
        if parts.scheme != "kafka" or not parts.netloc or "@" in parts.netloc or not topic or "/" in topic:
            raise ValueError(f"found {address!r}, expected kafka://HOST:PORT/TOPIC")
        return address

    @field_validator("security")
    @classmethod
    def _holds_no_secret(cls, security: Mapping[str, Any]) -> Mapping[str, Any]:
        if found := [key for key in security if "password" in key or key == "bootstrap.servers"]:
            raise ValueError(f"found {found[0]}, expected brokers in address and a password in KAFKA_PASSWORD")
        return security

    @property
    def brokers(self) -> str:
        """Addresses of the brokers.

        >>> KafkaEndpoint(address="kafka://a:9092,b:9092/xas").brokers
        'a:9092,b:9092'
        """
        return urlsplit(self.address).netloc

    @property
    def topic(self) -> str:
        """Name of the topic.

        >>> KafkaEndpoint(address="kafka://a:9092/bmm.bluesky.runengine.documents").topic
        'bmm.bluesky.runengine.documents'
        """
        return urlsplit(self.address).path.strip("/")

    def options(self) -> dict[str, Any]:
        """Return the settings of a client of librdkafka."""
        options: dict[str, Any] = {"bootstrap.servers": self.brokers, "logger": _QUIET, **self.security}
        if password := os.environ.get(self.password_from):
            options["sasl.password"] = password
        if self.ca_file is not None:
            options["ssl.ca.location"] = str(self.ca_file)
        return options

    def require_client(self) -> None:
        """Raise InputError if confluent-kafka is not installed."""
        try:
            import confluent_kafka  # noqa: F401
        except ImportError:
            message = "Kafka needs confluent-kafka: pip install 'xas-agent[kafka]'"
            raise InputError(f"{self.address}: {message}") from None

    def find_topic(self, client: Any) -> int:
        """Return the number of partitions of the topic.

        Raises
        ------
        EndpointUnreachable
            No broker answers within ``connect_timeout_s``, or the topic does not exist.
        """
        from confluent_kafka import KafkaException

        try:
            found = client.list_topics(self.topic, timeout=self.connect_timeout_s).topics[self.topic]
        except KafkaException as error:
            waited = f"no Kafka broker answered within {self.connect_timeout_s:g} s ({error.args[0].str()})"
            raise EndpointUnreachable(self.address, waited) from None
        if found.error is not None or not found.partitions:
            reason = "" if found.error is None else f" ({found.error.str()})"
            raise EndpointUnreachable(self.address, f"found no topic {self.topic}{reason}; make it on the brokers")
        return len(found.partitions)


class _Quiet:
    """Receives the log lines of librdkafka, which would otherwise go to stderr."""

    def log(self, level: int, message: str, *args: Any) -> None:
        log.debug("librdkafka", detail=message % args if args else message)


_QUIET = _Quiet()
