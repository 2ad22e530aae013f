"""Damage files of spectra, and count what the readers make of them: ``python tests/damaged_files.py FOLDER COUNT``.

A reader should tell of a damage that changes numbers: it refuses the file, or gives a note or a spectrum with a flaw.
"""

import gzip
import random
import re
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xas_agent.adapters.formats import FileSpectrum, SpectrumFileError, flaw, read_spectra

LIMIT_S = 20
"""Longest time that a reader may take for one file."""
LARGEST = 150_000
"""Largest size of a file that is damaged, bytes."""
_NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")
_ODD = ("nan", "inf", "-inf", "1e999", "-1", "0", "1e-320", "9" * 400, "--", "1.2.3", "3,5", "0x1F", "١٢", "")

Random = random.Random
OnText = Callable[[str, Random], str]
OnBytes = Callable[[bytes, Random], bytes]


def _is_row(line: str) -> bool:
    return len(_NUMBER.findall(line)) > 1 and line.strip()[:1] not in "#%;!C"


def _on_rows(change: Callable[[list[str], int, Random], None]) -> OnText:
    def damage(text: str, rng: Random) -> str:
        lines = text.split("\n")
        for row in rng.sample(range(len(lines)), min(len(lines), 50)):
            if _is_row(lines[row]):
                change(lines, row, rng)
                break
        return "\n".join(lines)

    return damage


def _on_number(change: Callable[[str, Random], str]) -> OnText:
    def damage(lines: list[str], row: int, rng: Random) -> None:
        number = rng.choice(list(_NUMBER.finditer(lines[row])))
        lines[row] = lines[row][: number.start()] + change(number[0], rng) + lines[row][number.end() :]

    return _on_rows(damage)


def _without(text: str, place: int) -> str:
    return text[:place] + text[place + 1 :]


def _lose_digit(number: str, rng: Random) -> str:
    return _without(number, rng.choice([i for i, c in enumerate(number) if c.isdigit()]))


def _change_digit(number: str, rng: Random) -> str:
    place = rng.choice([i for i, c in enumerate(number) if c.isdigit()])
    return number[:place] + rng.choice("0123456789") + number[place + 1 :]


def _swap_digits(number: str, rng: Random) -> str:
    place = rng.randrange(max(len(number) - 1, 1))
    return number[:place] + number[place : place + 2][::-1] + number[place + 2 :]


def _drop_row(lines: list[str], row: int, rng: Random) -> None:
    del lines[row]


def _drop_rows(lines: list[str], row: int, rng: Random) -> None:
    del lines[row : row + rng.randrange(2, 40)]


def _double_row(lines: list[str], row: int, rng: Random) -> None:
    lines.insert(row, lines[row])


def _move_row(lines: list[str], row: int, rng: Random) -> None:
    line = lines.pop(row)
    lines.insert(max(0, row + rng.choice([-20, -1, 1, 2, 50])), line)


def _join_columns(lines: list[str], row: int, rng: Random) -> None:
    parts = re.split(r"([\s,;]+)", lines[row])
    gaps = [i for i in range(1, len(parts) - 1, 2) if parts[i - 1] and parts[i + 1]]
    if gaps:
        parts[rng.choice(gaps)] = ""
    lines[row] = "".join(parts)


def _drop_value(lines: list[str], row: int, rng: Random) -> None:
    lines[row] = _NUMBER.sub("", lines[row], count=1)


def _swap_columns(lines: list[str], row: int, rng: Random) -> None:
    words = lines[row].split()
    i, j = rng.randrange(len(words)), rng.randrange(len(words))
    words[i], words[j] = words[j], words[i]
    lines[row] = "  ".join(words)


def _cut_columns(text: str, rng: Random) -> str:
    width = rng.randrange(8, 80)
    return "\n".join(line[:width] for line in text.split("\n"))


def _change_header(text: str, rng: Random) -> str:
    lines = text.split("\n")
    head = [i for i, line in enumerate(lines[:60]) if not _is_row(line)] or [0]
    place = rng.choice(head)
    lines[place] = rng.choice([lines[place][: len(lines[place]) // 2], "", lines[place] * 2, lines[place][::-1]])
    return "\n".join(lines)


TEXT: dict[str, OnText] = {
    "lose a digit": _on_number(_lose_digit),
    "change a digit": _on_number(_change_digit),
    "swap two digits": _on_number(_swap_digits),
    "lose a point": _on_number(lambda number, _: number.replace(".", "")),
    "negate": _on_number(lambda number, _: number.removeprefix("-") if number[0] == "-" else f"-{number}"),
    "odd number": _on_number(lambda _, rng: rng.choice(_ODD)),
    "drop a row": _on_rows(_drop_row),
    "drop rows": _on_rows(_drop_rows),
    "double a row": _on_rows(_double_row),
    "move a row": _on_rows(_move_row),
    "join two columns": _on_rows(_join_columns),
    "drop a value": _on_rows(_drop_value),
    "swap two values": _on_rows(_swap_columns),
    "cut columns": _cut_columns,
    "change the header": _change_header,
    "swap characters": lambda text, rng: text.replace(*rng.sample(" .,;-\t#eE0189\n", 2)),
}


def _flip(raw: bytes, rng: Random) -> bytes:
    content = bytearray(raw)
    for _ in range(rng.choice([1, 1, 4, 100])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def _shift(raw: bytes, rng: Random) -> bytes:
    begin, end = sorted(rng.choices(range(len(raw) + 1), k=2))
    return raw[:begin] + raw[end : end + rng.randrange(200)] + raw[begin:]


BYTES: dict[str, OnBytes] = {
    "flip bytes": _flip,
    "truncate": lambda raw, rng: raw[: rng.randrange(len(raw))],
    "insert bytes": _shift,
    "UTF-16": lambda raw, rng: raw.decode("latin-1").encode(rng.choice(["utf-16", "utf-16-le", "utf-16-be"])),
    "line ends": lambda raw, rng: raw.replace(b"\n", rng.choice([b"\r", b"\r\n", b"\n\n", b"\0", b"\x0b", b"\x85"])),
}


def damage(raw: bytes, kind: str, rng: Random) -> bytes:
    """Return the content of a file with a damage of one kind; gzipped text is damaged before it is compressed."""
    if kind in BYTES:
        return BYTES[kind](raw, rng)
    packed = raw[:2] == b"\x1f\x8b"
    text = (gzip.decompress(raw) if packed else raw).decode("latin-1").replace("\r\n", "\n")
    changed = TEXT[kind](text, rng).encode("latin-1", errors="replace")
    return gzip.compress(changed, 1) if packed else changed


def is_text(raw: bytes) -> bool:
    """Whether damages of text apply."""
    return raw[:2] == b"\x1f\x8b" or b"\0" not in raw[:4096]


def outcome(path: Path, before: list[FileSpectrum]) -> str:
    """Read a damaged file and return what the reader tells: refused, noted, silent, or unchanged."""
    try:
        after = read_spectra(path)
    except SpectrumFileError as error:
        return "misread" if "no reader understands" in str(error) else "refused"
    told = len(after) != len(before)
    changed = told
    for old, new in zip(before, after, strict=False):
        changed |= not _equal(old.energy, new.energy) or not _equal(old.mu, new.mu)
        told |= set(new.notes) - set(old.notes) != set() or (flaw(new) is not None and flaw(old) is None)
    return "noted" if told and changed else "silent" if changed else "unchanged"


def _equal(a: Any, b: Any) -> bool:
    return np.array_equal(a, b, equal_nan=True)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"a reader took more than {LIMIT_S} s")


def campaign(folder: Path, count: int, seed: int = 0) -> dict[str, Counter[str]]:
    """Damage files of a folder at random, ``count`` times, and return the outcomes by kind of damage.

    A damaged file that a reader answers by another exception than SpectrumFileError is kept, and its path printed.
    """
    rng = random.Random(seed)
    signal.signal(signal.SIGALRM, _too_long)
    sources: list[tuple[Path, bytes, list[FileSpectrum]]] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and 0 < p.stat().st_size <= LARGEST):
        try:
            sources.append((path, path.read_bytes(), read_spectra(path)))
        except SpectrumFileError:
            continue
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as work:
        for number in range(count):
            path, raw, before = rng.choice(sources)
            kind = rng.choice([*BYTES, *TEXT] if is_text(raw) else list(BYTES)[:3])
            damaged = Path(work) / path.name
            damaged.write_bytes(damage(raw, kind, rng))
            signal.alarm(LIMIT_S)
            try:
                result = outcome(damaged, before)
            except BaseException as error:
                result = "escaped"
                print(f"{path} {kind}: {error!r}", flush=True)
            finally:
                signal.alarm(0)
            found.setdefault(kind, Counter())[result] += 1
            if result in ("escaped", "misread"):
                kept = Path(tempfile.gettempdir()) / f"damaged-{seed}-{number}-{path.name}"
                kept.write_bytes(damaged.read_bytes())
                print(f"{result}: {kind}: {kept}", flush=True)
            damaged.unlink()
    return found


def main() -> None:
    """Print a table of outcomes by kind of damage."""
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0
    warnings.simplefilter("error")
    names = ("refused", "noted", "silent", "unchanged", "misread", "escaped")
    print(f"{'damage':20}" + "".join(f"{name:>10}" for name in names))
    total: Counter[str] = Counter()
    for kind, counts in sorted(campaign(folder, count, seed).items()):
        total += counts
        print(f"{kind:20}" + "".join(f"{counts[name]:10}" for name in names))
    print(f"{'all':20}" + "".join(f"{total[name]:10}" for name in names))
    sys.exit(bool(total["escaped"] or total["misread"]))


if __name__ == "__main__":
    main()
