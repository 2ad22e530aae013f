"""``python -m xas_agent``, and the command ``xas-agent``."""

import os
import signal

_INTERRUPTED = 130


def main() -> None:
    """Run the command; Ctrl-C while its modules are imported ends it without a word."""
    earlier = signal.getsignal(signal.SIGINT)
    if earlier is signal.default_int_handler:  # not where SIGINT is ignored
        # Nothing is begun that an exception would have to end, and one in an import ends in a traceback.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from .cli import app

    signal.signal(signal.SIGINT, earlier)
    app()


if __name__ == "__main__":
    main()
