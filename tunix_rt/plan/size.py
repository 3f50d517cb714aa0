"""Sizes of memory as text, and back."""

from __future__ import annotations

import re

from tunix_rt.errors import InputError

UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {f"{unit}B": UNITS[unit] for unit in "KMGT"}
UNITS |= {f"{unit}iB": 2 ** (10 * power) for power, unit in enumerate("KMGT", start=1)}


def parse(text: str) -> int:
    """Bytes of `8GiB`, `500MB`, `1.5 TiB`. Raises InputError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found.group(2) not in UNITS:
        raise InputError(f"--memory {text!r}: expected a size such as 8GiB or 500MiB")
    return int(float(found.group(1)) * UNITS[found.group(2)])


def shown(size: int) -> str:
    """`512 MiB`, `1,539 MiB`; what is below one rounds up."""
    return f"{-(-size // 2**20):,} MiB"
