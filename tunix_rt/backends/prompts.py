"""Prompts that occur several times in one call, as the samples of one question do: they are read once."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.batches.encoded import Int32


def first_equals(prompts: Sequence[Int32]) -> list[int]:
    """For each prompt (int32 [N]) the position of the first one that equals it."""
    found: dict[bytes, int] = {}
    return [found.setdefault(prompt.tobytes(), index) for index, prompt in enumerate(prompts)]


def distinct(prompts: Sequence[Int32]) -> tuple[list[Int32], list[int]]:
    """The different prompts in the order in which they occur first, and for each prompt its place among them."""
    firsts = first_equals(prompts)
    places = {index: place for place, index in enumerate(dict.fromkeys(firsts))}
    return [prompts[index] for index in places], [places[index] for index in firsts]
