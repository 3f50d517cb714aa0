"""Predictions → verdicts and metrics.json."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tunix_rt.config.results import EvaluationConfig
from tunix_rt.errors import DataError, InputError
from tunix_rt.evaluation.score import score
from tunix_rt.evaluation.statistics import pass_at_k, wilson
from tunix_rt.runs.rates import interval, lookup, rates
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

Rules = Callable[..., EvaluationConfig]
Predict = Callable[..., Prediction]
Ask = Callable[..., Trace]


def test_every_verdict_and_every_rate(rules: Rules, predict: Predict, ask: Ask) -> None:
    """A right answer, a wrong one, a malformed one, a cut-off one and a failed one, counted by hand."""
    traces = {name: ask(name, level=1 if name < "c" else 2) for name in "abcde"}
    predictions = [
        predict("a", "12", steps=("5 + 7 = 12",), num_new_tokens=10),
        predict("b", "13", steps=("5 + 7 = 12", "12 + 1 = 14"), num_new_tokens=20),
        predict("c", None, completion="it is 12", num_new_tokens=4),
        predict("d", None, completion="it is 1", finish_reason="length", num_new_tokens=64),
        predict("e", None, finish_reason="error", error="prompt too long", num_new_tokens=0),
    ]
    result = score(predictions, traces, rules(slices=("level",)))
    assert [item["correct"] for item in result.items] == [True, False, False, False, False]
    assert [item["reason"] for item in result.items] == [
        "same number", "other number", "not in the format", "no end token", "failed: prompt too long",
    ]  # fmt: skip
    assert [item["malformed"] for item in result.items] == [False, False, True, True, False]
    assert result.items[1]["step_checks"] == {
        "num_steps": 2, "num_checked": 2, "num_wrong": 1, "first_wrong": 1, "verdicts": [True, False],
        "repeated": [], "unused": [], "contradiction": True,
    }  # fmt: skip
    assert result.items[0]["prompt"] == "prompt a" and result.items[0]["slices"] == {"level": "1"}
    metrics = result.metrics
    expected = wilson(1, 5)
    assert metrics["accuracy"] == {"value": 0.2, "k": 1, "n": 5, "low": expected.low, "high": expected.high}
    rates = {"stop_rate": 3, "malformed_rate": 2, "error_rate": 1, "contains_answer": 2}
    assert {name: metrics[name]["k"] for name in rates} == rates
    assert metrics["completion_tokens"] == {"mean": 24.5, "median": 15.0, "p95": 64, "max": 64}
    assert metrics["slices"]["level"]["1"]["k"] == 1 and metrics["slices"]["level"]["1"]["n"] == 2
    assert metrics["slices"]["level"]["2"]["n"] == 3
    assert (metrics["n"], metrics["prompts"], metrics["missing"]) == (5, 5, 0)
    json.dumps(result.metrics, allow_nan=False)
    json.dumps(result.items, allow_nan=False)


def test_right_answers_from_wrong_steps(rules: Rules, predict: Predict, ask: Ask) -> None:
    """Prevents: a right answer hiding that its steps are wrong."""
    traces = {name: ask(name) for name in "abcd"}
    predictions = [
        predict("a", "12", steps=("5 + 7 = 12", "no equation")),
        predict("b", "12", steps=("5 + 7 = 13",)),
        predict("c", "13", steps=("5 + 7 = 12", "12 + 1 = 12")),
        predict("d", "12", steps=("no equation",)),
    ]
    steps = score(predictions, traces, rules()).metrics["steps"]
    assert (steps["checked"]["k"], steps["checked"]["n"]) == (3, 4)
    assert (steps["all_steps_right"]["k"], steps["all_steps_right"]["n"]) == (1, 3)
    assert (steps["right_answer_wrong_steps"]["k"], steps["right_answer_wrong_steps"]["n"]) == (1, 2)
    assert (steps["wrong_answer_right_steps"]["k"], steps["wrong_answer_right_steps"]["n"]) == (0, 1)
    assert steps["first_wrong"] == {"0": 1, "1": 1}
    assert {place: (rate["k"], rate["n"]) for place, rate in steps["by_index"].items()} == {"0": (2, 3), "1": (0, 1)}
    assert "steps" not in score(predictions, traces, rules(steps="none")).metrics


def test_samples_give_pass_at_k_and_a_vote(rules: Rules, predict: Predict, ask: Ask) -> None:
    answers = {"a": ["12", "12.0", "7"], "b": ["7", "12", "7"], "c": ["7", "12", "8"]}
    traces = {name: ask(name) for name in answers}
    predictions = [predict(name, answers[name][sample], sample) for sample in (2, 0, 1) for name in answers]
    metrics = score(predictions, traces, rules(pass_at=(1, 2, 3))).metrics
    assert metrics["accuracy"]["k"] == 4 and metrics["accuracy"]["n"] == 9
    for k in (1, 2, 3):
        by_hand = (pass_at_k(3, 2, k) + 2 * pass_at_k(3, 1, k)) / 3
        assert metrics["pass_at"][str(k)]["value"] == pytest.approx(by_hand)
    assert metrics["pass_at"]["3"]["low"] == wilson(3, 3).low
    # `c` is a tie of three: the earliest sample, which is wrong, decides.
    assert (metrics["majority"]["k"], metrics["majority"]["n"]) == (1, 3)


def test_interval_counts_prompts_not_samples(rules: Rules, predict: Predict, ask: Ask) -> None:
    """Prevents: ten samples of one prompt sold as ten independent trials."""
    traces = {name: ask(name) for name in "ab"}
    predictions = [predict(name, "12" if name == "a" else "1", sample) for name in "ab" for sample in range(10)]
    accuracy = score(predictions, traces, rules()).metrics["accuracy"]
    assert (accuracy["value"], accuracy["low"], accuracy["high"]) == (0.5, wilson(1, 2).low, wilson(1, 2).high)


def test_without_items_a_rate_is_null(rules: Rules, predict: Predict, ask: Ask) -> None:
    """Prevents: a division by zero where no step could be checked, and NaN in the file."""
    metrics = score([predict("a", None, finish_reason="error", error="x")], {"a": ask("a")}, rules()).metrics
    assert metrics["steps"]["all_steps_right"]["value"] is None
    assert metrics["completion_tokens"]["mean"] is None
    assert interval(metrics, "steps.all_steps_right") is None
    with pytest.raises(InputError, match=r"no number 'steps.all_steps_right'; there are: .*steps.checked"):
        lookup(metrics, "steps.all_steps_right")


def test_lookup(rules: Rules, predict: Predict, ask: Ask) -> None:
    traces = {"a": ask("a", level=0.5), "b": ask("b", level="x.y")}
    metrics = score([predict("a", "12"), predict("b", "1")], traces, rules(slices=("level",), pass_at=(1,))).metrics
    assert lookup(metrics, "accuracy") == 0.5 and lookup(metrics, "pass_at.1") == 0.5
    assert lookup(metrics, "slices.level.0.5") == 1.0 and lookup(metrics, "slices.level.x.y") == 0.0
    assert lookup(metrics, "completion_tokens.max") == 5.0 and lookup(metrics, "n") == 2.0
    assert interval(metrics, "accuracy") == wilson(1, 2)
    assert interval(metrics, "completion_tokens.max") is None and interval(metrics, "nothing") is None
    for wrong in ("acuracy", "slices", "completion_tokens", "accuracy.nothing", ""):
        with pytest.raises(InputError, match="there are: schema_version, n, prompts"):
            lookup(metrics, wrong)


def test_missing_predictions_are_counted(rules: Rules, predict: Predict, ask: Ask) -> None:
    traces = {name: ask(name) for name in "abc"}
    predictions = [predict("a", "12", 0), predict("a", "12", 1), predict("b", "12", 0)]
    assert score(predictions, traces, rules()).metrics["missing"] == 3


def test_what_does_not_belong_together_is_refused(rules: Rules, predict: Predict, ask: Ask) -> None:
    traces = {"a": ask("a", level=1)}
    good = predict("a", "12")
    with pytest.raises(DataError, match="no predictions"):
        score([], traces, rules())
    with pytest.raises(DataError, match="prediction a, sample 0: there 2 times"):
        score([good, good], traces, rules())
    with pytest.raises(DataError, match="prediction z: no trace with this id"):
        score([predict("z", "12")], traces, rules())
    with pytest.raises(DataError, match="its reference is '13', the trace's final answer '12'"):
        score([predict("a", "12", reference="13")], traces, rules())
    with pytest.raises(InputError, match="no trace has the meta key 'lvel'; there are: level"):
        score([good], traces, rules(slices=("lvel",)))
    with pytest.raises(DataError, match="prompt a: 1 samples, pass@2 needs at least 2"):
        score([good], traces, rules(pass_at=(2,)))


def test_every_further_scorer_has_its_rate(rules: Rules, predict: Predict, ask: Ask) -> None:
    """The decisive one's rate is the accuracy; it is listed too if it gives further numbers."""
    traces = {name: ask(name, "red car") for name in "abc"}
    predictions = [
        predict("a", "Red car.", reference="red car"),
        predict("b", "the car", reference="red car"),
        predict("c", None, completion="red car", reference="red car"),
    ]
    result = score(predictions, traces, rules("exact", "text", "number"))
    scores = result.metrics["scores"]
    assert result.metrics["accuracy"]["k"] == 0 and list(scores) == ["text", "number"]
    assert (scores["text"]["k"], scores["text"]["n"], scores["text"]["word_f1"]) == (1, 3, 0.5)
    assert lookup(result.metrics, "scores.text") == 1 / 3 and lookup(result.metrics, "scores.text.word_f1") == 0.5
    assert rates(result.metrics)["right by text"]["k"] == 1
    assert result.items[1]["scores"]["text"] == {"correct": False, "reason": "other text", "word_f1": 0.5}
    assert result.items[2]["scores"]["text"] == {"correct": False, "reason": "not in the format"}
    assert score(predictions, traces, rules("text")).metrics["scores"]["text"]["word_f1"] == 0.5
    assert "scores" not in score(predictions, traces, rules("exact")).metrics


def test_where_an_answer_was_found(rules: Rules, predict: Predict, ask: Ask) -> None:
    traces = {name: ask(name) for name in "ab"}
    predictions = [predict("a", "12"), predict("b", None, completion="#### 12\nBut #### 13")]
    result = score(predictions, traces, rules(extract=("format", "hashes")))
    assert [(item["marker"], item["ambiguous"]) for item in result.items] == [("format", False), ("hashes", True)]
    assert result.metrics["ambiguous_rate"]["k"] == 1 and result.metrics["accuracy"]["k"] == 2


def test_what_has_no_reference_is_counted_and_in_no_rate(rules: Rules, predict: Predict, ask: Ask) -> None:
    """A completion that calls a tool has no answer to compare with."""
    traces = {"a": ask("a"), "b": ask("b", "")}
    predictions = [predict(id, "12", sample, reference=traces[id].final_answer) for id in "ab" for sample in (0, 1)]
    metrics = score(predictions, traces, rules(pass_at=(1,))).metrics
    assert metrics["n"] == 4 and metrics["without_reference"] == 1
    for name in ("accuracy", "contains_answer"):
        assert (metrics[name]["k"], metrics[name]["n"]) == (2, 2)
    assert metrics["pass_at"]["1"]["value"] == 1 and metrics["majority"]["n"] == 1
    alone = score(predictions[2:], {"b": traces["b"]}, rules(pass_at=(1,)))
    assert alone.metrics["accuracy"]["value"] is None and alone.metrics["majority"]["value"] is None
    assert not any(item["contains_answer"] for item in alone.items)


def test_the_majority_is_compared_with_the_greedy_answer(rules: Rules, predict: Predict, ask: Ask) -> None:
    """By hand: on `a` to `f` only the majority is right, on `g` only the greedy answer; p = 2 * 8 / 2**7."""
    traces = {name: ask(name) for name in "abcdefgh"} | {"i": ask("i", "")}
    right = {name: "7" if name == "g" else "12" for name in traces}
    predictions = [
        predict(name, text, sample, reference=traces[name].final_answer)
        for name in traces
        for sample, text in enumerate(("8", right[name], right[name]))
    ]
    greedy = [predict(name, "12" if name in "gh" else "5", reference=traces[name].final_answer) for name in traces]
    metrics = score(predictions, traces, rules(), greedy).metrics
    assert (metrics["majority"]["k"], metrics["greedy"]["k"], metrics["greedy"]["n"]) == (7, 2, 8)
    record = metrics["majority_against_greedy"]
    assert record == {"n": 8, "gained": 6, "lost": 1, "difference": 5 / 8, "p_value": pytest.approx(0.125)}
    assert "greedy" not in score(predictions, traces, rules()).metrics
    with pytest.raises(DataError, match="there 2 times"):
        score(predictions, traces, rules(), [*greedy, greedy[0]])
