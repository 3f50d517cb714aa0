"""The ranked table: best first, failures last, and only what varied in its columns."""

from __future__ import annotations

from typing import Any

import pytest

from tunix_rt.errors import InputError
from tunix_rt.sweeps.ranking import Member, ranked, rows, varying


def metrics(k: int) -> dict[str, Any]:
    return {
        "accuracy": {"value": k / 10, "k": k, "n": 10, "low": k / 20, "high": 1.0},
        "stop_rate": {"value": 1.0, "k": 10, "n": 10, "low": 0.7, "high": 1.0},
    }


MEMBERS = [
    Member(("++seed=1", "backend=jax"), "runs/a", metrics(5), None),
    Member(("++seed=2", "backend=jax"), None, None, "broke\nbadly"),
    Member(("++seed=3", "backend=jax"), "runs/c", metrics(9), None),
]


def test_best_first_and_failures_last() -> None:
    assert [m.folder for m in ranked(MEMBERS, "accuracy", "maximize")] == ["runs/c", "runs/a", None]
    assert [m.folder for m in ranked(MEMBERS, "accuracy", "minimize")] == ["runs/a", "runs/c", None]


def test_only_what_varied_is_a_column() -> None:
    assert varying(MEMBERS) == ["seed"]
    columns, shown = rows(MEMBERS, "accuracy", "maximize")
    assert columns == ["rank", "seed", "accuracy", "95 % interval", "stop rate", "run"]
    assert shown[0] == ["1", "3", "90.0 %", "[45.0 %, 100.0 %]", "100.0 %", "runs/c"]
    assert shown[2] == ["-", "2", "failed", "", "", "broke"]


def test_an_unknown_metric_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no number 'acuracy'; there are: accuracy, stop_rate"):
        ranked(MEMBERS, "acuracy", "maximize")
