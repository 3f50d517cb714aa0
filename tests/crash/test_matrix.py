"""SIGKILL at every write, rename and change of state; the same command again ends as if nothing had happened.

Bit-identical model, log, predictions, verdicts and scores; so each step and each prediction is there once. CI kills at
every third kind of file of training and prediction once, the acceptance tier at all kinds of all stages; `pytest -m
stress -n 0 tests/crash` at every point, and at random ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.cases import JOINED, SAMPLED, VARIANTS, Laboratory, Point, reduced

BACKENDS = ("torch", "jax")
"""The first is the cheaper one to start again."""
RANDOM_KILLS = 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("backend", "whole"),
    [
        (BACKENDS[0], False),
        pytest.param(BACKENDS[0], True, marks=pytest.mark.acceptance),
        pytest.param(BACKENDS[1], False, marks=pytest.mark.acceptance),
    ],
)
def test_killed_at_each_kind_of_file(backend: str, whole: bool, laboratory: Callable[[str], Laboratory]) -> None:
    """`whole`: in every stage; else where a backend computes, and in CI a third of that."""
    here = laboratory(backend)
    references = {variant: here.reference(variant) for variant in JOINED}
    for reference in references.values():
        (run,) = reference.folder.glob("runs/crash/*")
        answers = [(line["id"], line["sample"]) for line in lines(run / "predictions.jsonl")]
        steps = [line["step"] for line in lines(run / "metrics.jsonl") if "train/loss" in line]
        assert len(set(answers)) == len(answers) and steps == list(range(1, len(steps) + 1))
    chosen = reduced(references, whole)[:: 1 if whole or backend != BACKENDS[0] else 3]
    others = {"start", "prepare", "evaluate", "report"} if whole else set()
    assert {point.stage for _, point in chosen} == {"train", "predict"} | others
    found = {f"{variant}: {point.words}": here.killed_at(variant, point) for variant, point in chosen}
    assert {name: what for name, what in found.items() if what} == {}


BETWEEN_UPDATES = Point("train", "dispatched step", 5)
IN_A_ROLLOUT = [
    *(Point("train", name, 2) for name in ("sampled rollouts", "judged rollouts", "written rollouts/step_#.jsonl")),
    Point("train", "renamed rollouts/step_#.jsonl", 2),
]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("backend", "points"),
    [
        (BACKENDS[0], [BETWEEN_UPDATES]),
        pytest.param(BACKENDS[0], IN_A_ROLLOUT, marks=pytest.mark.acceptance),
        pytest.param(BACKENDS[1], [BETWEEN_UPDATES, *IN_A_ROLLOUT], marks=pytest.mark.acceptance),
    ],
)
def test_killed_in_a_rollout_and_between_its_updates(
    backend: str, points: list[Point], laboratory: Callable[[str], Laboratory]
) -> None:
    """What is not on disk is sampled again; what is on disk is not, though the model that sampled it is gone."""
    here, (variant,) = laboratory(backend), SAMPLED
    (run,) = here.reference(variant).folder.glob("runs/crash/*")
    assert [int(file.stem[5:]) for file in sorted(run.glob("rollouts/*.jsonl"))] == [1, 4, 7]
    found = {point.words: here.killed_at(variant, point) for point in points}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.slow
def test_killed_while_a_model_is_taken_as_it_is(laboratory: Callable[[str], Laboratory]) -> None:
    here = laboratory(BACKENDS[0])
    (point,) = [point for point in here.reference("as it is").points if point.name == "sealed train"]
    assert here.killed_at("as it is", point) == []


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.mark.stress
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("variant", [*JOINED, *SAMPLED, "shards"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_at_every_point(backend: str, variant: str, laboratory: Callable[[str], Laboratory]) -> None:
    here = laboratory(backend)
    found = {point.words: here.killed_at(variant, point) for point in here.reference(variant).points}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.stress
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_at_random(
    backend: str, laboratory: Callable[[str], Laboratory], capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the kills at a point, half after a time; each variant in turn."""
    here, chance = laboratory(backend), random.Random(backend)
    rows = []
    for number in range(RANDOM_KILLS):
        variant = list(VARIANTS)[number % len(VARIANTS)]
        reference = here.reference(variant)
        if (number + number // len(VARIANTS)) % 2:
            point = chance.choice(reference.points)
            place, differing = f"{point.stage}: {point.words}", here.killed_at(variant, point)
        else:
            seconds = chance.uniform(0.0, reference.seconds)
            place, differing = f"after {seconds:.2f} s", here.killed_after(variant, seconds)
        rows.append((variant, place, differing))
    with capsys.disabled():
        print(f"\n{backend}: {len(rows)} kills, {sum(bool(row[2]) for row in rows)} end otherwise")
        for variant, place, differing in rows:
            print(f"  {variant:13} {place:55} {'; '.join(differing) or 'equal'}")
    assert [row for row in rows if row[2]] == []
