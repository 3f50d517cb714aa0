"""Free memory goes back to the system when a backend turns to another verb, and not before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FREED_IN_THE_MIDDLE = """
import numpy as np
import psutil
from tunix_rt.backends import heap

def resident():
    return psutil.Process().memory_info().rss / 2**20

heap.begin("train_step")
before = resident()
pieces = [np.ones(12_000) for _ in range(2_000)]  # 96 kB each: glibc's heap, not pages of their own
last = np.ones(12_000)  # what keeps the heap from shrinking at its end
full = resident()
assert full - before > 150, (before, full)
del pieces
heap.begin("train_step")
assert resident() > full - 20, "what the next step needs again stays"
heap.begin("save")
assert resident() < before + 40, "another verb: it went back"
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's heap")
def test_free_memory_goes_back_between_verbs_only() -> None:
    done = subprocess.run([sys.executable, "-c", FREED_IN_THE_MIDDLE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
