"""SIGKILL while training on Tunix and predicting with it; the same command again ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.cases import Laboratory, Point
from tests.crash.forked import Forking

POINTS = (
    Point("train", "dispatched step", 4),
    Point("train", "writing step_#/checkpoint.json", 3),
    Point("predict", "torn #/predictions.jsonl", 6),
)


@pytest.mark.parametrize("points", [POINTS[:1], pytest.param(POINTS[1:], marks=pytest.mark.stress)])
@pytest.mark.slow
def test_killed_while_it_computes(points: tuple[Point, ...], tmp_path: Path) -> None:
    here = Laboratory(Forking("tunix", tmp_path), tmp_path)
    found = {point.words: here.killed_at("float32", point) for point in points}
    here.forking.close()
    assert {name: what for name, what in found.items() if what} == {}
