"""The ranked table: best first, the others last, and only what varied in its columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tunix_rt.errors import InputError
from tunix_rt.sweeps.ranking import Member, ranked, ranking, rows, title, varying


def metrics(k: int) -> dict[str, Any]:
    return {
        "accuracy": {"value": k / 10, "k": k, "n": 10, "low": k / 20, "high": 1.0},
        "stop_rate": {"value": 1.0, "k": 10, "n": 10, "low": 0.7, "high": 1.0},
    }


MEMBERS = [
    Member({"seed": "1", "backend": "jax"}, "finished", "runs/a", metrics(5), None),
    Member({"seed": "2", "backend": "jax"}, "failed", "runs/b", None, "broke\nbadly"),
    Member({"seed": "3", "backend": "jax"}, "finished", "runs/c", metrics(9), None),
    Member({"seed": "4", "backend": "jax"}, "pruned", "runs/d", None, "hopeless"),
]


def test_best_first_and_failures_last() -> None:
    assert [m.folder for m in ranked(MEMBERS, "accuracy", "maximize")] == ["runs/c", "runs/a", "runs/b", "runs/d"]
    assert [m.folder for m in ranked(MEMBERS, "accuracy", "minimize")] == ["runs/a", "runs/c", "runs/b", "runs/d"]


def test_only_what_varied_is_a_column() -> None:
    assert varying([member.values for member in MEMBERS]) == ["seed"]
    columns, shown = rows(MEMBERS, "accuracy", "maximize")
    assert columns == ["rank", "seed", "accuracy", "95 % interval", "stop rate", "run"]
    assert shown[0] == ["1", "3", "90.0 %", "[45.0 %, 100.0 %]", "100.0 %", "runs/c"]
    assert shown[2] == ["-", "2", "failed", "", "", "runs/b broke"]
    assert shown[3] == ["-", "4", "pruned", "", "", "runs/d hopeless"]


def test_members_that_were_asked_other_questions_are_not_compared_in_silence() -> None:
    """Prevents: a sweep over `dataset.seed` ranking members on different tests, and nothing saying so."""
    alike = [replace(member, questions="a") for member in MEMBERS]
    assert title("x", alike, "accuracy") == "x: 4 members, ranked by accuracy"
    unlike = [*alike[:2], replace(alike[2], questions="b"), alike[3]]
    assert "NOT comparable: asked 2 different sets of questions" in title("x", unlike, "accuracy")


def test_the_file_has_values_with_intervals() -> None:
    best, *_, last = ranking(MEMBERS, "accuracy", "maximize")
    assert (best["value"], best["interval"], best["folder"]) == (0.9, [0.45, 1.0], "runs/c")
    assert (last["value"], last["state"], last["reason"]) == (None, "pruned", "hopeless")


def test_an_unknown_metric_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no number 'acuracy'; there are: accuracy, stop_rate"):
        ranked(MEMBERS, "acuracy", "maximize")
