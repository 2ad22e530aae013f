"""What an adapter raises when the world outside is not there."""


class EndpointUnreachable(ConnectionError):  # noqa: N818 - says what happened, as ConnectionRefused would
    """Nothing answered at an endpoint in time, or it could not be bound.

    Args:
        endpoint: the address as the user gave it.
        why: what was waited for and for how long.
    """

    def __init__(self, endpoint: str, why: str) -> None:
        super().__init__(f"{endpoint}: {why}")
        self.endpoint = endpoint
        self.why = why
