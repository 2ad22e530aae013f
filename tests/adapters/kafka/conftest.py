"""What all tests over Kafka share."""

import pytest

from xas_agent.adapters.kafka import source


@pytest.fixture(autouse=True)
def no_wait_for_acknowledgements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers in tests acknowledge little, and need not wait for it at their end."""
    monkeypatch.setattr(source, "RELEASE_S", 0.0)
