"""A model divided as a backend may divide it."""

from __future__ import annotations

from tunix_rt.models.parts import WHOLE, Part, PartOf, nth_rows


def by_rows(index: int, count: int) -> PartOf:
    """Every tensor divided on its first axis among `count` processes: the part of process `index`."""
    return lambda name, shape: Part((nth_rows(shape[0], index, count),)) if shape else WHOLE
