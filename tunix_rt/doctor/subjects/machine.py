"""Cores and memory, as the container or scheduler limits them; Python."""

from __future__ import annotations

import os
import platform

from tunix_rt.doctor.finding import Finding, Place
from tunix_rt.machine import free_memory, usable_cores, usable_memory

LEAST_FREE = 1e9
"""Bytes of memory below which a framework alone may not fit."""


def findings(place: Place) -> list[Finding]:
    """Three lines."""
    return [Finding("Python", "works", f"{platform.python_version()} on {platform.platform()}"), _cores(), _memory()]


def _cores() -> Finding:
    usable, there = usable_cores(), os.cpu_count() or 1
    limited = "" if usable >= there else f" of {there} (affinity, or the container's quota)"
    return Finding("cores", "works", f"{usable}{limited}")


def _memory() -> Finding:
    free, usable = free_memory(), usable_memory()
    text = f"{free / 1e9:.1f} GB free of {usable / 1e9:.1f} GB"
    if free < LEAST_FREE:
        return Finding("memory", "broken", text, "end other programs, or raise the container's limit")
    return Finding("memory", "works", text)
