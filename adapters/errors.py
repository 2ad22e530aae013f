"""Errors that several adapters raise."""


class EndpointUnreachable(ConnectionError):  # noqa: N818 - named after the event, as ConnectionRefused is
    """Nothing answers at an endpoint in time, or the endpoint cannot be bound.

    Parameters
    ----------
    endpoint : str
        Address as the user writes it.
    reason : str
        Missing peer and time waited, or the cause of the failed binding.
    """

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__(f"{endpoint}: {reason}")
        self.endpoint = endpoint
        self.reason = reason
