"""Findings of ``xas-agent doctor`` on the machine: Python, packages, terminal, clock, memory and disk."""

import ctypes
import os
import platform
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from ..._version import __version__
from .finding import Finding

NAME = "xas-agent"
_OLDEST = (3, 11)
_UNSYNCHRONISED = 0x0040
"""Bit of the kernel's clock status (``STA_UNSYNC``)."""
_LEAST_FREE_GB, _LOW_FREE_GB = 0.5, 5.0
_SLOW_MB_PER_S = 10.0
_TRIAL_MB = 16
_LEAST_MEMORY_GB = 1.5
_MAX_SKEW_S = 2.0
"""Difference between a file's time and the clock above which a folder of files is misread: a file counts as complete
once it has not changed for 2 s."""
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph", "9p", "afs")
"""Network file systems, on which SQLite's write-ahead log is not safe."""


def python() -> Finding:
    """Report the versions of Python and of the package."""
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}; {NAME} {__version__}"
    if sys.version_info < _OLDEST:
        return Finding("python", "fail", text, "expected Python 3.11 or later")
    return Finding("python", "ok", text)


def requirements(extra: str = "") -> list[Requirement]:
    """Return the requirements of the package, or of one of its extras, on this machine.

    Raises
    ------
    PackageNotFoundError
        The package is not installed but runs from a folder.
    """
    found: list[Requirement] = []
    for text in requires(NAME) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        if always == bool(extra) or not (marker is None or marker.evaluate({"extra": extra})):
            continue
        if requirement.name == NAME:
            found += [r for inner in sorted(requirement.extras) for r in requirements(inner)]
        else:
            found.append(requirement)
    return found


def unmet(wanted: list[Requirement]) -> tuple[list[str], list[str]]:
    """Return the requirements that are not installed, and those with another version, in words."""
    missing: list[str] = []
    other: list[str] = []
    for requirement in wanted:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            missing.append(requirement.name)
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            other.append(f"{requirement.name} {found}, expected {requirement.specifier}")
    return missing, other


def packages() -> Iterator[Finding]:
    """Compare the installed packages with the requirements of the package."""
    try:
        wanted = requirements()
    except PackageNotFoundError:
        yield Finding("packages", "warn", f"{NAME} runs from a folder and is not installed", f"pip install {NAME}")
        return
    missing, other = unmet(wanted)
    if missing or other:
        text = "; ".join(filter(None, (f"missing: {', '.join(missing)}" if missing else "", *other)))
        yield Finding("packages", "fail", text, f"pip install --upgrade {NAME}")
    else:
        yield Finding("packages", "ok", f"{len(wanted)} required packages, in versions that fit")


def terminal() -> Iterator[Finding]:
    """Check whether the terminal can show all characters of the output, such as μ, Å and ±."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8":
        remedy = "export LC_ALL=C.UTF-8, or PYTHONUTF8=1"
        yield Finding(
            "terminal", "warn", f"its encoding is {sys.stdout.encoding}; expected UTF-8 for μ, Å, ±", remedy
        )


def clock() -> Iterator[Finding]:
    """Check whether the clock is synchronised, and the time zone."""
    zone = f"time zone {time.strftime('%Z, UTC%z')}"
    state = kernel_clock()
    if state is None:
        yield Finding("clock", "ok", f"{zone}; the kernel does not say whether it is synchronised")
        return
    synchronised, error_s = state
    if synchronised:
        yield Finding("clock", "ok", f"synchronised, within {max(error_s, 0.001):.3f} s; {zone}")
    else:
        text = f"not synchronised with a time server; {zone}. Ages of frames and leases compare two machines' clocks"
        yield Finding("clock", "warn", text, "timedatectl set-ntp true, or start chronyd")


def kernel_clock() -> tuple[bool, float] | None:
    """Return whether the kernel's clock is synchronised, and its estimated largest error, s; None if unknown."""
    if sys.platform != "linux" or struct.calcsize("P") != 8:
        return None
    buffer = ctypes.create_string_buffer(256)  # struct timex with modes 0, which only reads
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    if answer < 0:
        return None
    (max_error_us,) = struct.unpack_from("q", buffer, 24)
    (status,) = struct.unpack_from("i", buffer, 40)
    return not status & _UNSYNCHRONISED, max_error_us / 1e6


def memory() -> Iterator[Finding]:
    """Report the available memory."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    kb = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    if kb is None:
        return
    gb = kb / 1024**2
    if gb < _LEAST_MEMORY_GB:
        text = f"{gb:.1f} GB available; expected {_LEAST_MEMORY_GB} GB for torch and the models"
        yield Finding("memory", "warn", text, "end other programs, or use fewer models: model.use")
    else:
        yield Finding("memory", "ok", f"{gb:.1f} GB available")


def disk(out: Path) -> Iterator[Finding]:
    """Report free space, speed and type of the file system of an output folder."""
    folder = next(p for p in (out.resolve(), *out.resolve().parents) if p.exists())
    if not folder.is_dir():
        yield Finding("disk", "fail", f"{folder}: found a file, expected a folder", "name another one: --out")
        return
    free_gb = shutil.disk_usage(folder).free / 1e9
    try:
        speed, skew_s = _write(folder)
    except OSError as error:
        remedy = "name a folder in which you may write: --out"
        yield Finding("disk", "fail", f"{folder}: cannot be written: {error.strerror or error}", remedy)
        return
    text = f"{folder}: {free_gb:.1f} GB free, written with {speed:.0f} MB/s"
    if free_gb < _LEAST_FREE_GB:
        yield Finding("disk", "fail", text, f"make space: expected {_LOW_FREE_GB:g} GB for a night")
    elif free_gb < _LOW_FREE_GB:
        yield Finding("disk", "warn", text, f"make space: expected {_LOW_FREE_GB:g} GB for a night")
    elif speed < _SLOW_MB_PER_S:
        yield Finding("disk", "warn", text, f"expected {_SLOW_MB_PER_S:g} MB/s: use another disk for --out")
    else:
        yield Finding("disk", "ok", text)
    if (kind := file_system(folder)) in _REMOTE:
        text = f"{folder} is on a network file system ({kind}), on which journal.sqlite may not be locked safely"
        yield Finding("disk", "warn", text, "keep --out on a local disk, and copy it afterwards")
    if abs(skew_s) > _MAX_SKEW_S:
        text = f"files in {folder} are dated {skew_s:+.0f} s from this machine's clock"
        yield Finding("disk", "warn", text, "synchronise the clock of the file server")


def _write(folder: Path) -> tuple[float, float]:
    """Write and remove a file; return the speed with fsync, MB/s, and the file's date minus the clock, s."""
    block = os.urandom(1 << 20)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".xas-agent-doctor-") as file:
        begun = time.perf_counter()
        for _ in range(_TRIAL_MB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        took_s = time.perf_counter() - begun
        return _TRIAL_MB / took_s, os.fstat(file.fileno()).st_mtime - time.time()


def file_system(folder: Path) -> str:
    """Return the type of a folder's file system, such as ``ext4``; empty if unknown."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    kinds = {Path(words[1].replace("\\040", " ")): words[2] for words in map(str.split, mounts) if len(words) > 2}
    return next((kinds[p] for p in (folder, *folder.parents) if p in kinds), "")
