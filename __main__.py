"""``python -m xas_agent``, and the command ``xas-agent``."""

import os
import signal
import sys

_FAILED, _INTERRUPTED = 1, 130


def main() -> None:
    """Run the command; Ctrl-C during the import of its modules ends it silently, and a full stdout with a message."""
    earlier = signal.getsignal(signal.SIGINT)
    if earlier is signal.default_int_handler:  # unless SIGINT is ignored
        # Nothing has begun that an exception would have to end; in an import it would print a traceback.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from .app.commands.process import StdoutError
    from .cli import app

    signal.signal(signal.SIGINT, earlier)
    try:
        app()
    except StdoutError as error:
        sys.stderr.write(f"xas-agent: stdout: {error.strerror}; what it got is not complete\n")
        sys.exit(_FAILED)


if __name__ == "__main__":
    main()
