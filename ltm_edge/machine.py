"""What the machine has: memory and disk, by the system's own means."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "free_disk", "memory", "nearest_existing"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory in bytes.

    Attributes:
        total: what this process may use at most: the machine's, or its container's limit.
        available: what is free or can be freed without swapping; None where the system doesn't say.
        limited: whether a container's limit is below the machine's memory.
    """

    total: int
    available: int | None
    limited: bool = False


def memory() -> Memory | None:
    """The machine's memory, None where the system doesn't say."""
    if sys.platform == "win32":
        return _windows_memory()
    if sys.platform == "linux":
        return _linux_memory(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))
    try:
        return Memory(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), None)
    except (OSError, ValueError):
        return None


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_disk(path: Path) -> int | None:
    """Bytes that this user may still write where `path` is or would be; None where the system doesn't say."""
    try:
        return shutil.disk_usage(nearest_existing(path)).free
    except OSError:
        return None


def _linux_memory(meminfo: Path, cgroup: Path) -> Memory | None:
    try:
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", meminfo.read_text("ascii", "replace"), re.MULTILINE))
        total = int(found["MemTotal"]) * 1024
        available = int(found["MemAvailable"]) * 1024
    except (OSError, KeyError):
        return None
    limit, used = _number_in(cgroup / "memory.max"), _number_in(cgroup / "memory.current")
    if limit is None or used is None or limit >= total:
        return Memory(total, available)
    # Pages of files count as used in a container, too, and are given back when memory is short.
    try:
        stat = dict(re.findall(r"^(\w+) (\d+)$", (cgroup / "memory.stat").read_text("ascii"), re.MULTILINE))
        used -= int(stat.get("inactive_file", 0))
    except (OSError, UnicodeDecodeError):
        pass
    return Memory(limit, max(0, min(available, limit - used)), limited=True)


def _number_in(file: Path) -> int | None:
    try:
        return int(file.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _windows_memory() -> Memory | None:
    if sys.platform != "win32":
        return None
    import ctypes

    class Status(ctypes.Structure):
        """MEMORYSTATUSEX of the Windows API."""

        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total", ctypes.c_ulonglong),
            ("available", ctypes.c_ulonglong),
            ("page_total", ctypes.c_ulonglong),
            ("page_available", ctypes.c_ulonglong),
            ("virtual_total", ctypes.c_ulonglong),
            ("virtual_available", ctypes.c_ulonglong),
            ("extended", ctypes.c_ulonglong),
        )

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return Memory(status.total, status.available)
