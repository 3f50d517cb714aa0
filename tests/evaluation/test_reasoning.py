"""Steps together: what is repeated, what is used by nothing, and whether the last one gives the answer."""

from __future__ import annotations

from typing import Any

import pytest

from tests.evaluation.test_steps import TRACES
from tunix_rt.evaluation.reasoning import check_steps, reasoning

BOUGHT = ("3 * 5 = 15 apples", "2 * 4 = 8 pears", "15 + 8 = 23 in all")
CASES: list[tuple[tuple[str, ...], str, dict[str, Any]]] = [
    (BOUGHT, "23", {}),
    (BOUGHT, "24", {"contradiction": True}),
    (BOUGHT, "$23.00", {}),
    (("3 * 5 = 15 apples", "2 * 4 = 8 pears", "20 + 3 = 23"), "23", {"unused": [0, 1]}),
    (("3 * 5 = 15 apples", "6 * 4 = 24 pears", "He takes fifteen and 24 - 15 = 9"), "9", {}),
    (("20 / 80 = 0.25", "so 25% of 40 = 10"), "10", {}),
    (("5 / 15 = 1/3 hour", "60 / 3 = 20 minutes"), "20", {}),
    (("10 / 3 = 3.3333", "3.33 * 2 = 6.66"), "6.66", {}),
    (("100 / 8 = 12.5 boxes",), "12", {}),
    (("100 / 8 = 12.5 boxes",), "13", {}),
    (("He can skip 4 because 10 - 4 = 6",), "4", {}),
    (("10 - 4 = 6", "so he is left with six"), "7", {"contradiction": None}),
    (("10 * 7 = 70", "together they skip 150 times", "150 * 15 = 2250"), "2250", {}),
    (("12 + 1 = 13", "Again:", "12  + 1 = 13"), "13", {"repeated": [2]}),
    (("12 + 1 = 13",), "Paris", {"contradiction": None}),
    ((), "5", {"contradiction": None}),
    (("8+2+0=10", "9+2+1=12", "9+3+1=13"), "1320", {"contradiction": None}),
    (("8+2+0=10", "8+2+0=10", "9+2+1=12", "9+3+1=13", "9+=1"), "1320", {"contradiction": None}),
    (("5 / 0 = 5", "1/0 + 1/0 = 2"), "2", {"contradiction": False}),
]


@pytest.mark.parametrize(("steps", "answer", "expected"), CASES)
def test_by_hand(steps: tuple[str, ...], answer: str, expected: dict[str, Any]) -> None:
    report = check_steps(steps, answer)
    sound = {"repeated": [], "unused": [], "contradiction": False}
    assert {name: report[name] for name in sound} == sound | expected


def test_what_is_generated_is_not_blamed() -> None:
    """Prevents: long multiplication, which uses results by their digits, called reasoning that leads nowhere."""
    for trace in TRACES:
        report = check_steps([step.content for step in trace.steps], trace.final_answer)
        assert not report["repeated"] and not report["unused"] and not report["contradiction"], trace


def test_an_answer_without_a_reference_is_not_wrong() -> None:
    """Prevents: right steps to an answer that nobody can judge counted as those of a wrong one. By hand: of two wrong
    answers one has right steps, and of one right answer none has wrong ones."""
    steps = {"a": "1+1=2", "b": "1+1=2", "c": "1+1=3", "d": "1+1=2"}
    items = [
        {"id": name, "step_checks": check_steps([step], "2"), "correct": name == "a"} for name, step in steps.items()
    ]
    found = reasoning(items, [item for item in items if item["id"] != "d"])
    counts = {name: (found[name]["k"], found[name]["n"]) for name in ("all_steps_right", "wrong_answer_right_steps")}
    assert counts == {"all_steps_right": (3, 4), "wrong_answer_right_steps": (1, 2)}
    assert found["right_answer_wrong_steps"]["n"] == 1
