"""The benchmarks that are no races, at toy size: each leaves its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import growth, loop
from benchmarks.growth import exponent

ROUND = ("--quick", "--backends", "torch", "--markdown", "made.md")


def test_the_loop_is_measured_over_its_bare_steps(work: Path) -> None:
    loop.main([*ROUND])
    (row,) = _rows(work, "torch")
    assert all(float(ratio.split()[0]) > 0 for ratio in row[1:])


def test_growth_has_a_row_for_each_size(work: Path) -> None:
    growth.main([*ROUND])
    prepared, *_, largest = _rows(work, "40", "80", "16", "32", "1 M", "10 M")
    assert float(prepared[1]) > 0 and float(largest[1]) > 0
    assert len(_rows(work, "exponent")) == 3


def test_an_exponent_is_the_slope_of_logarithms() -> None:
    assert exponent([10, 100, 1000], [3, 30, 300]) == pytest.approx(1)
    assert exponent([2, 4, 8], [1, 4, 16]) == pytest.approx(2)


def _rows(folder: Path, *labels: str) -> list[list[str]]:
    """The rows of all tables that have one of these labels, in that order."""
    lines = (folder / "made.md").read_text("utf-8").splitlines()
    found = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    rows = [row for label in labels for row in found if row[0] == label]
    assert {row[0] for row in rows} == set(labels)
    return rows
