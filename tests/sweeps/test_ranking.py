"""The ranked table: best first, the others last, and only what varied in its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunix_rt.comparison.ranks import ranks
from tunix_rt.errors import InputError
from tunix_rt.evaluation.statistics import wilson
from tunix_rt.files import write_json, write_jsonl
from tunix_rt.runs.sweep import MemberRecord, MemberState
from tunix_rt.sweeps.plots import parallel_coordinates
from tunix_rt.sweeps.ranking import Member, ranked, ranking, rows, title, varying, verdict


def metrics(k: int) -> dict[str, Any]:
    return {
        "accuracy": {"value": k / 10, "k": k, "n": 10, "low": k / 20, "high": 1.0},
        "stop_rate": {"value": 1.0, "k": 10, "n": 10, "low": 0.7, "high": 1.0},
    }


def record(rate: int, state: MemberState, folder: str, reason: str | None = None) -> MemberRecord:
    return MemberRecord((f"lr={rate}", "backend=jax"), state, folder, reason)


MEMBERS = [
    Member(record(1, "finished", "runs/a"), metrics(5)),
    Member(record(2, "failed", "runs/b", "broke\nbadly")),
    Member(record(3, "finished", "runs/c"), metrics(9)),
    Member(record(4, "pruned", "runs/d", "hopeless")),
]


def folders(members: Sequence[Member], direction: str = "maximize") -> list[str | None]:
    return [place.member.record.folder for place in ranked(members, "accuracy", direction)]


def test_best_first_and_failures_last() -> None:
    assert folders(MEMBERS) == ["runs/c", "runs/a", "runs/b", "runs/d"]
    assert folders(MEMBERS, "minimize") == ["runs/a", "runs/c", "runs/b", "runs/d"]


def test_only_what_varied_is_a_column() -> None:
    assert varying([member.record.values for member in MEMBERS]) == ["lr"]
    columns, shown = rows(ranked(MEMBERS, "accuracy", "maximize"), "accuracy")
    assert columns == ["rank", "lr", "accuracy", "95 % interval", "stop rate", "run"]
    assert shown[0] == ["1=", "3", "90.0 %", "[45.0 %, 100.0 %]", "100.0 %", "runs/c"]
    assert shown[2] == ["-", "2", "failed", "", "", "runs/b broke"]
    assert shown[3] == ["-", "4", "pruned", "", "", "runs/d hopeless"]


def test_members_that_were_asked_other_questions_are_not_compared_in_silence() -> None:
    """Prevents: a sweep over `dataset.seed` ranking members on different tests, and nothing saying so."""
    alike = [replace(member, questions="a") for member in MEMBERS]
    assert title("x", alike, "accuracy") == "x: 4 members, ranked by accuracy"
    unlike = [*alike[:2], replace(alike[2], questions="b"), alike[3]]
    assert "NOT comparable" in title("x", unlike, "accuracy")
    found = ranked(unlike, "accuracy", "maximize")
    assert [place.rank for place in found] == [1, 1, None, None], "so no tag calls one of them best"
    assert verdict(found, "lr=3").startswith("none of them is best")


def test_the_file_has_values_with_intervals() -> None:
    best, *_, last = ranking(ranked(MEMBERS, "accuracy", "maximize"))
    assert (best["value"], best["interval"], best["folder"]) == (0.9, [0.45, 1.0], "runs/c")
    assert (best["rank"], best["leading"]) == (1, True)
    assert (last["value"], last["state"], last["reason"]) == (None, "pruned", "hopeless")
    assert (last["rank"], last["leading"]) == (None, False)


def test_an_unknown_metric_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no number 'acuracy'; there are: accuracy, stop_rate"):
        ranked(MEMBERS, "acuracy", "maximize")


def member(name: str, verdicts: Sequence[bool], loss: float = 1.0, folder: Path | None = None) -> Member:
    """A finished member whose answers to the same prompts were right or wrong so."""
    k, n = sum(verdicts), len(verdicts)
    found = wilson(k, n)
    scores = {
        "n": n,
        "accuracy": {"value": k / n, "k": k, "n": n, "low": found.low, "high": found.high},
        "stop_rate": {"value": 1.0, "k": n, "n": n, "low": 0.9, "high": 1.0},
    }
    if folder is not None:
        same = {"sample": 0, "prompt": "0+1=", "reference": "1", "reason": ""}
        write_jsonl(folder / "items.jsonl", [same | {"id": str(i), "correct": v} for i, v in enumerate(verdicts)])
        write_json(folder / "stages.json", {"evaluate": {"state": "done"}})
    return Member(MemberRecord((f"lr={name}",), "finished", str(folder or name)), scores, loss)


def places(members: Sequence[Member]) -> list[tuple[str, int | None, bool]]:
    return [(p.member.record.values["lr"], p.rank, p.leading) for p in ranked(members, "accuracy", "maximize")]


def test_equal_results_share_a_rank_and_none_is_best() -> None:
    """Prevents: 'best.optimizer.learning_rate: 0.001' of two members with 0 of 20 each."""
    members = [member("1e-3", [False] * 20, 2.5), member("3e-3", [False] * 20, 0.9), member("x", [True] * 20, 9.0)]
    assert places(members[:2]) == [("3e-3", 1, True), ("1e-3", 1, True)], "in order of the validation loss"
    assert places(members) == [("x", 1, True), ("3e-3", 2, False), ("1e-3", 2, False)]
    tied, clear = (ranked(some, "accuracy", "maximize") for some in (members[:2], members))
    assert verdict(tied, "lr=3e-3").startswith("2 settings (rank 1=) cannot be told apart")
    assert verdict(clear, "lr=x") == "best: lr=x"
    assert [row[0] for row in rows(tied, "accuracy")[1]] == ["1=", "1="]
    assert [row[0] for row in rows(clear, "accuracy")[1]] == ["1", "2=", "2="]
    assert verdict(ranked(MEMBERS[1:2], "accuracy", "maximize"), "") == "no member finished"


def test_what_overlaps_is_not_told_apart() -> None:
    """Prevents: 13 of 20 called better than 12 of 20."""
    assert places([member("a", [True] * 12 + [False] * 8), member("b", [True] * 13 + [False] * 7)]) == [
        ("b", 1, True),
        ("a", 1, True),
    ]


def test_the_same_test_items_tell_more(tmp_path: Path) -> None:
    """Intervals overlap, yet one is right wherever the other is and in eight more: a coin does that once in 128."""
    worse, better = [True] * 50 + [False] * 50, [True] * 58 + [False] * 42
    alone = [member("worse", worse), member("better", better)]
    assert places(alone) == [("better", 1, True), ("worse", 1, True)]
    paired = [member("worse", worse, folder=tmp_path / "w"), member("better", better, folder=tmp_path / "b")]
    assert places(paired) == [("better", 1, True), ("worse", 2, False)]
    five = [
        member("worse", worse, folder=tmp_path / "w"),
        member("five", [True] * 55 + [False] * 45, folder=tmp_path / "f"),
    ]
    assert places(five) == [("five", 1, True), ("worse", 1, True)], "5 to 0 happens by chance once in 16"


def repeated(rate: str, seed: int, verdicts: Sequence[bool], folder: Path) -> Member:
    """A member of a sweep over values and seeds."""
    found = member(rate, verdicts, folder=folder / f"{rate}-{seed}")
    overrides = (f"lr={rate}", f"seed={seed}")
    return replace(found, record=replace(found.record, overrides=overrides))


def test_seeds_of_one_setting_are_ranked_together(tmp_path: Path) -> None:
    """Prevents: the luckiest seed of the worse value called best."""
    right = {"a": (90, 80, 85), "b": (40, 38, 83)}
    members = [
        repeated(rate, seed, [True] * k + [False] * (100 - k), tmp_path)
        for rate, some in right.items()
        for seed, k in enumerate(some)
    ]
    found = ranked(members, "accuracy", "maximize")
    assert [place.member.record.values["lr"] for place in found] == ["a"] * 3 + ["b"] * 3
    assert {place.rank for place in found} == {1}, "the seeds of b vary by more than that"
    columns, shown = rows(found, "accuracy")
    assert columns == ["rank", "lr", "seeds", "accuracy", "range of seeds", "stop rate", "run"]
    assert shown[0][:5] == ["1=", "a", "3", "85.0 %", "[80.0 %, 90.0 %]"]
    steady = [m for m in members if m.record.values["lr"] == "a"]
    steady += [repeated("b", seed, [True] * 40 + [False] * 60, tmp_path) for seed in range(3)]
    clear = ranked(steady, "accuracy", "maximize")
    assert [place.rank for place in clear] == [1, 1, 1, 2, 2, 2]
    assert verdict(clear, "lr=a seed=0") == "best: lr=a"
    assert [line["setting_value"] for line in ranking(clear)[2:4]] == pytest.approx([0.85, 0.4])
    only = ranked([m for m in members if m.record.values["lr"] == "a"], "accuracy", "maximize")
    assert verdict(only, "seed=0") == "one setting, 3 seeds, 85.0 % on average: nothing to rank"
    assert [row[:3] for row in rows(only, "accuracy")[1]] == [
        ["", "0", "90.0 %"],
        ["", "1", "80.0 %"],
        ["", "2", "85.0 %"],
    ]


def test_seeds_without_test_items_have_welchs_test(tmp_path: Path) -> None:
    """Of a number that items do not have, such as a percentile."""

    def members(rate: str, lengths: Sequence[float]) -> list[Member]:
        found = [repeated(rate, seed, [True], tmp_path) for seed in range(len(lengths))]
        p95 = [{"completion_tokens": {"p95": length}, "stop_rate": {"value": 1.0}} for length in lengths]
        return [replace(member, metrics=metrics) for member, metrics in zip(found, p95, strict=True)]

    def places(*members: Member) -> list[int | None]:
        return [place.rank for place in ranked(members, "completion_tokens.p95", "minimize")]

    assert places(*members("a", [9, 11, 10]), *members("b", [30, 31, 32])) == [1, 1, 1, 2, 2, 2]
    assert places(*members("a", [9, 11, 10]), *members("b", [9, 30, 12])) == [1] * 6


def test_a_number_without_items_or_interval_tells_nothing_apart(tmp_path: Path) -> None:
    """Prevents: the smallest of two calibration errors called best, however close they are."""
    members = [
        replace(member(name, [True], folder=tmp_path / name), metrics={"calibration": {"ece": ece}})
        for name, ece in (("a", 0.0801), ("b", 0.08))
    ]
    found = ranked(members, "calibration.ece", "minimize")
    assert [(place.value, place.rank) for place in found] == [(0.08, 1), (0.0801, 1)]
    assert verdict(found, "lr=b").startswith("there is no test for this metric (items do not have it")


def test_many_tries_are_corrected_for_their_number(tmp_path: Path) -> None:
    """Prevents: the best of twenty equal trials called best, which happens by chance."""
    first = [True] * 56 + [False] * 44
    other = [True] * 50 + [False] * 50
    two = [member("first", first, folder=tmp_path / "f"), member("other", other, folder=tmp_path / "o")]
    assert places(two) == [("first", 1, True), ("other", 2, False)], "6 to 0: p = 0.03"
    more = [member(f"x{n}", other[n:] + other[:n], folder=tmp_path / str(n)) for n in range(1, 3)]
    assert [rank for _, rank, _ in places([*two, *more])] == [1, 1, 1, 1]


def test_a_rank_reaches_down_to_the_last_that_its_leader_cannot_be_told_from() -> None:
    """The second of four differs from the first, the third does not: nothing is claimed about these three."""
    apart = [[False, True, False, True], [True, False, False, False], [False] * 4, [True, False, False, False]]
    assert ranks(apart) == [1, 1, 1, 4]
    assert ranks([[False, True], [True, False]]) == [1, 2]
    assert ranks([]) == []


def test_parallel_coordinates_are_drawn_of_results_that_differ(tmp_path: Path) -> None:
    """Prevents: a picture of a tie, which says nothing."""
    picture = tmp_path / "parallel.png"
    parallel_coordinates([member("1e-3", [False] * 20), member("3e-3", [False] * 20)], "accuracy", picture)
    assert not picture.exists()
    members = [member(name, [True] * k + [False] * (20 - k)) for name, k in (("1e-4", 2), ("3e-3", 9), ("1", 5))]
    parallel_coordinates(members, "accuracy", picture)
    assert picture.stat().st_size > 5_000
    parallel_coordinates([member("adamw", [True] * 3), member("sgd", [False] * 3)], "accuracy", picture)
    assert picture.stat().st_size > 5_000
