"""The histogram of lengths in the terminal."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.report.lengths import BINS, WIDTH, histogram

LINE = re.compile(r" *([0-9]+)(?:-([0-9]+))? +([0-9,]+) (█*)")


def rows(text: str) -> list[tuple[int, int, int, int]]:
    """(first length, last length, count, length of the bar) of each line."""
    found = [LINE.fullmatch(line) for line in text.split("\n")]
    assert all(found), text
    return [(int(m[1]), int(m[2] or m[1]), int(m[3].replace(",", "")), len(m[4])) for m in found if m]


def test_lengths_that_are_all_the_same_make_one_line() -> None:
    """The quickstart's traces all have 70 tokens."""
    assert rows(histogram([70] * 5000)) == [(70, 70, 5000, WIDTH)]


def test_a_gap_is_a_line_without_a_bar() -> None:
    assert [row[2:] for row in rows(histogram([1, 1, 3]))] == [(2, WIDTH), (0, 0), (1, WIDTH // 2)]


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60))
def test_every_length_is_in_exactly_one_bin(lengths: list[int]) -> None:
    found = rows(histogram(lengths))
    assert len(found) <= BINS
    assert sum(count for _, _, count, _ in found) == len(lengths)
    for first, last, count, bar in found:
        assert count == sum(first <= length <= last for length in lengths)
        assert bar <= WIDTH and (count or not bar)
    assert all(before[1] + 1 == after[0] for before, after in pairwise(found))
    assert max(bar for *_, bar in found) == WIDTH
