"""Free memory goes back to the system when a backend turns to another method; in a process of ours not before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

RESIDENT = """
import sys
import numpy as np
import psutil
from tunix_rt.backends import heap

def resident():
    return psutil.Process().memory_info().rss / 2**20
"""
FREED_IN_THE_MIDDLE = """
heap.trim_between_phases("train_step")
before = resident()
pieces = [np.ones(12_000) for _ in range(2_000)]  # 96 kB each: glibc's heap, not pages of their own
last = np.ones(12_000)  # what keeps the heap from shrinking at its end
full = resident()
assert full - before > 150, (before, full)
del pieces
heap.trim_between_phases("train_step")
assert resident() > full - 20, "what the next step needs again stays"
heap.trim_between_phases("save")
assert resident() < before + 40, "another method: it went back"
"""
RETAINED = """
if "ours" in sys.argv:
    heap.own_process()
heap.retain_freed_memory()
before = resident()
large = np.ones(2**24)
del large
kept = resident() > before + 100
assert kept == ("ours" in sys.argv), kept
heap.give_back()
assert resident() < before + 40
"""
IMPORTED = """
import gc
from tunix_rt.backends import registry
if "ours" in sys.argv:
    heap.own_process()
registry.import_backend("torch")
frozen = gc.get_freeze_count()
assert frozen > 100_000 if "ours" in sys.argv else frozen == 0, frozen
held = [[] for _ in range(10_000)]
registry.import_backend("torch")
assert gc.get_freeze_count() <= frozen, "what came later is collected as ever"
"""
on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's heap")


def run(script: str, *words: str) -> None:
    command = [sys.executable, "-c", RESIDENT + script, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@on_glibc
def test_free_memory_goes_back_between_methods_only() -> None:
    run(FREED_IN_THE_MIDDLE)


@on_glibc
@pytest.mark.parametrize("whose", ["ours", "somebody else's"])
def test_only_a_process_of_ours_keeps_what_is_freed(whose: str) -> None:
    """Prevents: a notebook that called `tunix_rt.run` and never gives memory back again."""
    run(RETAINED, whose)


@pytest.mark.parametrize("whose", ["ours", "somebody else's"])
def test_the_collector_of_cycles_passes_over_a_framework(whose: str) -> None:
    run(IMPORTED, whose)
