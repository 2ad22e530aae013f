"""A network between a client and a server of ZMQ requests that loses and repeats messages."""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import zmq

Fate = Callable[[dict[str, Any], bool], int]
"""How many times a message arrives, and whether it is a request."""


class Unreliable:
    """Passes messages on as often as ``fate`` says; in a thread, until ``close``.

    Parameters
    ----------
    server : str
        Address of the server.
    address : str
        Address for the clients.
    fate : callable
    """

    def __init__(self, server: str, address: str, fate: Fate) -> None:
        self.address = address
        self.counts: Counter[str] = Counter()
        """Numbers of messages that passed, were lost, and were repeated."""
        self._fate = fate
        self._closing = threading.Event()
        self._context = zmq.Context()
        self._clients = self._context.socket(zmq.ROUTER)
        self._clients.bind(address)
        self._server = self._context.socket(zmq.DEALER)
        self._server.connect(server)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        poller = zmq.Poller()
        for side in (self._clients, self._server):
            poller.register(side, zmq.POLLIN)
        while not self._closing.is_set():
            for side, _ in poller.poll(50):
                is_request = side is self._clients
                frames = side.recv_multipart()
                times = self._fate(json.loads(frames[-1]), is_request)
                self.counts["lost" if times == 0 else "repeated" if times > 1 else "passed"] += 1
                for _ in range(times):
                    (self._server if is_request else self._clients).send_multipart(frames)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def by_chance(seed: int, lost: float = 0.1, repeated: float = 0.1) -> Fate:
    """Lose and repeat messages with these probabilities."""
    rng = random.Random(seed)

    def fate(message: dict[str, Any], is_request: bool) -> int:
        chance = rng.random()
        return 0 if chance < lost else 2 if chance < lost + repeated else 1

    return fate
