"""Cores and memory of a container, by control groups of both versions as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from tunix_rt.machine import free_memory, usable_cores, usable_memory

GIBIBYTE = 2**30
AFFINITY = len(os.sched_getaffinity(0))


def written(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A root folder with /proc/self/cgroup and files below /sys/fs/cgroup."""
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


V2 = "0::/kubepods/pod1/box"
V1 = "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc"


@pytest.mark.parametrize(
    ("groups", "files", "memory", "free"),
    [
        (V2, {"kubepods/pod1/box/memory.max": "1073741824"}, 2**30, 2**30),
        (V2, {"kubepods/pod1/box/memory.max": "max", "kubepods/memory.max": "536870912"}, 2**29, 2**29),
        (
            V2,
            {
                "kubepods/pod1/box/memory.max": "1000",
                "kubepods/pod1/box/memory.current": "700",
                "kubepods/pod1/box/memory.stat": "anon 400\ninactive_file 200",
            },
            1000,
            500,
        ),
        ("0::/", {"memory.max": "4096"}, 4096, 4096),
        ("0::/../../other", {"memory.max": "4096"}, 4096, 4096),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": "2048", "memory/memory.limit_in_bytes": f"{2**63 - 4096}"},
         2048, 2048),
        (V1, {"memory/memory.limit_in_bytes": "2048", "memory/memory.usage_in_bytes": "48"}, 2048, 2000),
    ],
)  # fmt: skip
def test_the_memory_is_the_containers(
    groups: str, files: dict[str, str], memory: int, free: int, tmp_path: Path
) -> None:
    """Prevents: `plan` saying "fits" in a container of 8 GiB because the host has 256."""
    root = written(tmp_path, groups, files)
    assert (usable_memory(root), free_memory(root)) == (memory, free)


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        (V2, {"kubepods/pod1/box/cpu.max": "50000 100000"}, 1),
        (V2, {"kubepods/pod1/box/cpu.max": "max 100000", "kubepods/cpu.max": "100000 100000"}, 1),
        (V2, {"kubepods/pod1/box/cpu.max": "99900000 100000"}, AFFINITY),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "90000", "cpu/docker/abc/cpu.cfs_period_us": "100000"}, 1),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "-1", "cpu/docker/abc/cpu.cfs_period_us": "100000"}, AFFINITY),
    ],
)
def test_the_cores_are_the_containers(groups: str, files: dict[str, str], cores: int, tmp_path: Path) -> None:
    """Prevents: 128 threads on a share of one core."""
    assert usable_cores(written(tmp_path, groups, files)) == cores


def test_without_a_container_they_are_the_machines(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == AFFINITY
    assert usable_memory(tmp_path) == psutil.virtual_memory().total
    assert 0 < free_memory(tmp_path) <= usable_memory(tmp_path)


def test_the_cores_are_those_of_the_affinity_mask(tmp_path: Path) -> None:
    mask = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mask)})
    try:
        assert usable_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, mask)
