"""A terminal in memory: what remains on it of what a program writes."""

import re

_PIECES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+")


class Terminal:
    """Follows carriage returns, line feeds, cursor up and erasures of lines, which is all that the live view uses."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = self._column = 0

    def write(self, text: str) -> int:
        for piece in _PIECES.findall(text):
            self._take(piece)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    def _take(self, piece: str) -> None:
        if piece == "\r":
            self._column = 0
        elif piece == "\n":
            self._row, self._column = self._row + 1, 0
            self.lines += [""] * (self._row + 1 - len(self.lines))
        elif piece.startswith("\x1b["):
            number, what = piece[2:-1], piece[-1]
            assert what in "AKmhl", f"unknown sequence {piece!r}"
            if what == "A":
                self._row = max(self._row - int(number or 1), 0)
            elif what == "K":
                assert number == "2"
                self.lines[self._row] = ""
        else:
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + piece + line[self._column + len(piece) :]
            self._column += len(piece)
