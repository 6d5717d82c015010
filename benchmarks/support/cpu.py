"""Processor time of other processes, from the kernel's own account."""

import os
from pathlib import Path
from typing import Final

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PARENT, _OWN, _OWN_AND_REAPED = 1, slice(11, 13), slice(11, 15)
"""Fields of ``/proc/<pid>/stat`` counted from the one behind the closing bracket of the name."""


def cpu_seconds(pid: int) -> float:
    """User and system time of one process so far, in seconds, to the kernel's tick (10 ms)."""
    return sum(map(int, _fields(pid)[_OWN])) / TICKS_PER_SECOND


def tree_cpu_seconds(root: int) -> float:
    """The same for a process, everything it started, and what it started that has ended."""
    parents = _parents()
    family = [pid for pid in parents if _descends(pid, root, parents)]
    ticks = sum(map(int, _fields(root)[_OWN_AND_REAPED]))
    for pid in family:
        try:
            ticks += sum(map(int, _fields(pid)[_OWN]))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return ticks / TICKS_PER_SECOND


def _fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()


def _parents() -> dict[int, int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_fields(int(entry.name))[_PARENT])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return parents


def _descends(pid: int, root: int, parents: dict[int, int]) -> bool:
    parent = parents.get(pid)
    while parent:
        if parent == root:
            return True
        parent = parents.get(parent)
    return False
