"""What report.html shows of every answer: order, grouping, flips, steps in place, and the sentence at the top."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.conftest import MakeRun, four, prediction
from tests.report.made import made_run
from tunix_rt.comparison.pairs import paired
from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject, append_line, write_json
from tunix_rt.report.html.answers import Side, baseline_of, prompts, side_of, step_kinds, step_spans
from tunix_rt.report.html.embed import unpacked
from tunix_rt.report.html.headline import against, problems
from tunix_rt.report.html.page import page
from tunix_rt.runs.folder import RunFolder


def side(verdicts: dict[str, list[bool | None]], title: str = "this run") -> Side:
    """The answers of a model, by id its verdicts, a sample each; None: not judged."""
    items: dict[tuple[str, int], JsonObject] = {
        (name, sample): {"correct": bool(right), "reason": "no reference" if right is None else "same number"}
        for name, samples in verdicts.items()
        for sample, right in enumerate(samples)
    }
    return Side(title, {}, items)


def test_wrong_answers_come_first_and_samples_stand_together() -> None:
    shown = prompts(side({"a": [True], "b": [None], "c": [True, False], "d": [False], "e": [True, True]}), None)
    assert [prompt["id"] for prompt in shown] == ["c", "d", "b", "a", "e"]
    assert [prompt["place"] for prompt in shown] == [2, 3, 1, 0, 4]
    assert [[sample["sample"] for sample in prompt["samples"]] for prompt in shown] == [[0, 1], [0], [0], [0], [0, 1]]
    assert [prompt["samples"][0]["correct"] for prompt in shown] == [True, False, None, True, True]


def test_an_answer_is_beside_that_of_the_other_model(tmp_path: Path) -> None:
    run = made_run(tmp_path, prompts=30, samples=2)
    baseline = baseline_of(run)
    assert baseline is not None
    here = side_of(run, "this run")
    for prompt in prompts(here, baseline):
        for sample in prompt["samples"]:
            right, before = sample["correct"], sample["other"]["correct"]
            assert sample.get("flip") == (None if right == before else "fixed" if right else "broken")
            assert (right, before) == tuple(one.correct((prompt["id"], sample["sample"])) for one in (here, baseline))
            assert sum(sample["token_lengths"]) == len(sample["completion"]) == len(sample["probabilities"])


@pytest.mark.parametrize(
    ("wins", "losses", "verdict", "begins"),
    [
        (6, 0, "better", "Better by 23.1 points ["),
        (5, 0, "unclear", "No evidence of a difference: +20.0 points ["),
        (0, 6, "worse", "Worse by 23.1 points ["),
        (0, 0, "unclear", "No evidence of a difference: 0.0 points ["),
    ],
)
def test_better_only_beyond_chance(wins: int, losses: int, verdict: str, begins: str) -> None:
    """By McNemar's exact test 2 · 2⁻⁶ = 0.031 and 2 · 2⁻⁵ = 0.0625. Twenty equal answers tell nothing."""
    here = {str(at): [at < wins] for at in range(wins + losses)} | {f"same {at}": [True] for at in range(20)}
    there = {name: [not right[0] if len(name) < 3 else True] for name, right in here.items()}
    found = against(side(here), side(there, "the other"), {}, {})
    assert found.verdict == verdict
    assert found.sentence.startswith(begins)
    assert found.sentence.endswith(f"], against the other: {wins} answers fixed, {losses} broken.")


def test_samples_of_one_prompt_are_one_observation() -> None:
    """Prevents: 'better' from one prompt that was asked sixty times."""
    found = against(side({"a": [True] * 60}), side({"a": [False] * 60}), {}, {})
    assert found.verdict == "unclear" and found.sentence.startswith("One prompt says nothing")


def test_without_verdicts_of_the_other_nothing_is_tested() -> None:
    """Runs of earlier versions have the baseline's rate, not its verdicts."""
    rates = ({"accuracy": {"value": value}} for value in (0.75, 0.5))
    found = against(side({"a": [True]}), Side("before training", {("a", 0): {"completion": "1"}}, {}), *rates)
    assert found.verdict == "unpaired" and "+25.0 points" in found.sentence


def test_runs_that_were_asked_something_else_are_not_put_side_by_side(tmp_path: Path) -> None:
    left, right = made_run(tmp_path, prompts=4), made_run(tmp_path, prompts=4, name="b")
    page(left, right)
    lines = right.items.read_text()
    right.items.write_text(lines.replace("What is 11", "What is 12"))
    with pytest.raises(InputError, match="not asked the same: 1 of 4 differ, the first in the prompt of sums-00001"):
        page(left, right)
    shown = unpacked(page(left, right, common=True), "answers")["prompts"]
    assert [prompt["id"] for prompt in shown if "other" not in prompt["samples"][0]] == ["sums-00001"]
    for file in (right.items, right.predictions):
        file.write_text(file.read_text().replace("sums-", "others-"))
    with pytest.raises(InputError, match="none in common"):
        page(left, right)


def test_what_compare_refuses_is_not_put_side_by_side(tmp_path: Path) -> None:
    """Prevents: 'Better than B' of a run that was judged by kinder rules, or asked with other instructions."""
    left, right = made_run(tmp_path, prompts=4), made_run(tmp_path, prompts=4, name="b")

    def refused(reason: str) -> None:
        with pytest.raises(InputError, match=reason) as here:
            page(right, left)
        with pytest.raises(InputError) as there:
            paired(left, right)
        assert str(here.value) == str(there.value)

    for run, questions in ((left, "a"), (right, "b")):
        write_json(run.data, {"questions": {"test": questions}})
    refused("with other instructions or tools")
    left.config.write_text(f"{left.config.read_text()}evaluation: {{scorers: [{{kind: number}}]}}\n")
    refused("judged by different rules")


def test_steps_are_found_where_they_stand() -> None:
    completion = "1+1=2\nThen 1+1=2 again"
    assert step_spans(completion, ["1+1=2", "1+1=2"]) == [(0, 5), (11, 16)]
    assert step_spans(completion, ["1+1=2", "2+2=4"]) is None


@settings(max_examples=40)
@given(st.lists(st.text(max_size=8), max_size=6), st.text(max_size=4))
def test_spans_hold_the_steps(steps: list[str], between: str) -> None:
    completion = between.join(["", *steps, ""])
    spans = step_spans(completion, steps)
    assert spans is not None
    assert [completion[start:end] for start, end in spans] == steps
    assert [at for span in spans for at in span] == sorted(at for span in spans for at in span)


def test_a_step_is_called_wrong_whatever_else_it_is() -> None:
    checks = {"verdicts": [True, False, None, True, True], "repeated": [1, 3], "unused": [2, 3]}
    assert step_kinds(6, checks) == ["right", "wrong", "unused", "repeated", "right", "unchecked"]
    assert step_kinds(1, {}) == ["unchecked"]


def test_what_is_wrong_is_counted(make_run: MakeRun) -> None:
    """`four` has one wrong answer, from a wrong step, and a right one from a wrong step."""
    counts = {problem.label: problem.count for problem in problems(side_of(make_run(four()), "this run"), None)}
    assert counts == {"other text": 1, "first wrong step: 1": 1, "right answer from a wrong step": 1}


def test_first_wrong_steps_stand_in_order_of_the_steps() -> None:
    """Prevents: step 3, step 1, step 2. The most frequent four are shown."""
    places = [2, 2, 2, 0, 0, 1, 3, 3, 4]
    items: dict[tuple[str, int], JsonObject] = {
        (str(at), 0): {"correct": False, "reason": "other", "step_checks": {"first_wrong": place}}
        for at, place in enumerate(places)
    }
    labels = [(problem.label, problem.count) for problem in problems(Side("", {}, items), None)]
    assert labels[1:] == [(f"first wrong step: {step}", count) for step, count in ((1, 2), (2, 1), (3, 3), (4, 2))]


def test_zeros_are_kept_and_lone_records_are_shown(tmp_path: Path) -> None:
    """Prevents: a sample, confidence or step 0 taken for nothing; an answer lost for want of a verdict."""
    run = RunFolder(tmp_path / "runs" / "some" / "0123456789ab")
    run.path.mkdir(parents=True)
    append_line(run.predictions, prediction("2*6", "12", ["2*6=13"]).to_json())
    verdict = {"id": "3*4", "sample": 0, "correct": False, "reason": "x", "prompt": "3*4=", "confidence": 0.0}
    append_line(run.items, verdict | {"steps": {"verdicts": [False], "first_wrong": 0}, "num_new_tokens": 0})
    wrong, unjudged = prompts(side_of(run, "this run"), None)
    assert wrong["samples"] == [
        {"sample": 0, "correct": False, "reason": "x", "confidence": 0.0, "tokens": 0, "first_wrong": 0}
    ]
    assert unjudged["samples"][0]["correct"] is None and unjudged["samples"][0]["completion"] == "2*6=13;12"
