"""What this process may use: cores and memory (less if a container or scheduler limits them), cache folder, umask.

Linux limits a container by control groups (in the kernel's documentation: admin-guide/cgroup-v2, cgroup-v1/memory,
scheduler/sched-bwc). Each group above this process may set a limit; the smallest counts. A container often sees its own
group as the root: then the path in /proc/self/cgroup is not below /sys/fs/cgroup, and the root's files are those of its
group.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from tunix_rt.errors import MachineError

ROOT = Path("/")
_UNIFIED = ""
"""Cgroup v2 has one tree for all controllers; its line in /proc/self/cgroup names none."""
_MEMORY_FILES = {
    _UNIFIED: ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Controller → files with the limit and the usage, and the row of memory.stat with cached files."""


def usable_cores(root: Path = ROOT) -> int:
    """CPU cores in the affinity mask, but no more than the CPU quota allows, rounded up. At least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(root))]))


def usable_memory(root: Path = ROOT) -> int:
    """Bytes of memory of the machine, but no more than the container's limit."""
    import psutil

    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _memory_limits(root))])


def free_memory(root: Path = ROOT) -> int:
    """Bytes unused now, on the machine and within the container's limit; cached files count as free."""
    import psutil

    return min([int(psutil.virtual_memory().available), *(free for _, free in _memory_limits(root))])


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """(Limit, free part of it) in bytes of each group that has a limit. Without a limit, v1 reports about 2**63."""
    for controller, (limit_file, used_file, kept) in _MEMORY_FILES.items():
        for folder in _groups(root, controller):
            limit = _text(folder / limit_file)
            if limit.isdigit():
                stat = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines())
                used = int(_text(folder / used_file) or 0) - int(stat.get(kept, 0))
                yield int(limit), max(0, int(limit) - used)


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas of the groups, in cores."""
    shares = [_text(folder / "cpu.max").split() for folder in _groups(root, _UNIFIED)]
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    shares += [[_text(folder / name) for name in names] for folder in _groups(root, "cpu")]
    for share in shares:
        if len(share) == 2 and all(number.isdigit() for number in share):  # no quota: `max`, -1
            yield int(share[0]) / int(share[1])


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The group of this process and those above it."""
    top = root / "sys/fs/cgroup" / controller
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            folder = top if ".." in path.split("/") else top / path.lstrip("/")
            yield from (place for place in (folder, *folder.parents) if place.is_relative_to(top) and place.is_dir())


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except OSError:
        return ""


def cache_folder() -> Path:
    """The folder of compiled programs and cached hashes: outside the run folders, shared by all of them.

    Respects `XDG_CACHE_HOME`. Raises MachineError if there is no home directory.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(named) if named else Path.home() / ".cache") / "tunix_rt"
    except RuntimeError:
        raise MachineError("no home directory, where the cache would be: set HOME or XDG_CACHE_HOME") from None


def umask() -> int:
    """The umask, read without setting it if the system reports it, since setting it affects all threads."""
    status = Path("/proc/self/status")
    for line in status.read_text("utf-8", errors="replace").splitlines() if status.exists() else ():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
