"""``python -m xas_agent``, and the command ``xas-agent``."""

import os
import signal

_INTERRUPTED = 130


def main() -> None:
    """Run the command; Ctrl-C during the import of its modules ends it silently."""
    earlier = signal.getsignal(signal.SIGINT)
    if earlier is signal.default_int_handler:  # unless SIGINT is ignored
        # Nothing has begun that an exception would have to end; in an import it would print a traceback.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from .cli import app

    signal.signal(signal.SIGINT, earlier)
    app()


if __name__ == "__main__":
    main()
