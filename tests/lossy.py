"""A ZMQ proxy that loses and repeats messages, in both directions, as drawn from a seed."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq


class Losses:
    """Draws what becomes of each message, and counts it."""

    def __init__(self, share: float, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._share, self._random = share, random.Random(seed)

    def copies(self) -> int:
        drawn = self._random.random()
        copies = 0 if drawn < self._share else 2 if drawn < 2 * self._share else 1
        self.counts[("lost", "passed", "repeated")[copies]] += 1
        return copies


@contextmanager
def lossy_proxy(server: str, folder: Path, share: float = 0.1, seed: int = 0) -> Iterator[tuple[str, Losses]]:
    """Pass requests on to ``server``; lose this share of all messages and repeat the same share."""
    losses, closing = Losses(share, seed), threading.Event()
    address = f"ipc://{folder}/lossy"
    context = zmq.Context()
    clients, servers = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    clients.linger = servers.linger = 0
    clients.bind(address)
    servers.connect(server)

    def work() -> None:
        poller = zmq.Poller()
        poller.register(clients, zmq.POLLIN)
        poller.register(servers, zmq.POLLIN)
        while not closing.is_set():
            for socket, _ in poller.poll(50):
                message = socket.recv_multipart()
                for _ in range(losses.copies()):
                    (servers if socket is clients else clients).send_multipart(message)
        clients.close()
        servers.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield address, losses
    finally:
        closing.set()
        thread.join()
        context.term()
