"""Sizes in bytes, and how much memory there is to be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["default_budget", "human", "machine_memory", "peak_rss"]

_PROC_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def human(size: float) -> str:
    """A size for people, in the units that `--memory` takes: `640 MiB`, `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB" if size < 1024 else f"{size / 1024:.1f} TiB"


def machine_memory() -> int:
    """Bytes of memory this process may use at most: the machine's, or its control group's if that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_cgroup_limits()])


def default_budget() -> int:
    """A quarter of `machine_memory()`: leaves room for the page cache, which is what makes rereading fast."""
    return machine_memory() // 4


def peak_rss() -> int:
    """The most resident memory this process has had so far, in bytes (VmHWM; Linux only)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM line")


def _cgroup_limits() -> Iterator[int]:
    """The limits of this process's control group and of those around it, versions 1 and 2."""
    if not _PROC_CGROUP.is_file():
        return
    for line in _PROC_CGROUP.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        version_1 = "memory" in controllers.split(",")
        if not version_1 and controllers:
            continue
        root = _CGROUPS / "memory" if version_1 else _CGROUPS
        limit = "memory.limit_in_bytes" if version_1 else "memory.max"
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(root) and (group / limit).is_file():
                text = (group / limit).read_text().strip()
                if text.isdigit():
                    yield int(text)
