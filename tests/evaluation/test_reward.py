"""Rewards are the verdicts of `evaluate` as numbers, and no answer can hold training up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.evaluation import toy_package
from tests.evaluation.toy_scorer import NearScorer
from tunix_rt.config.results import EvaluationConfig
from tunix_rt.config.rollout import RewardConfig
from tunix_rt.errors import DataError
from tunix_rt.evaluation.reward import Reward, Rewarder
from tunix_rt.evaluation.score import score
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

LIMIT = 100
WEIGHTS = {"answer": 1.0, "format": 0.1, "steps": 0.2, "length": 0.3}
Rules = Callable[..., EvaluationConfig]
Predict = Callable[..., Prediction]
Ask = Callable[..., Trace]


def reward(weights: dict[str, float], seconds: float = 30.0) -> RewardConfig:
    return RewardConfig(weights=weights, seconds=seconds, megabytes=1024)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rules: Rules) -> EvaluationConfig:
    """The scorer of another package decides."""
    toy_package.install(tmp_path, near="toy_scorer:NearScorer")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return rules(scorers=(NearScorer(kind="near", within=4.0),))


@pytest.fixture
def near(toy: EvaluationConfig) -> Iterator[Rewarder]:
    """Rewards by it, with half a second for each answer."""
    with Rewarder(toy, reward({"near.nearness": 1.0, "answer": 0.5}, seconds=0.5), LIMIT) as rewarder:
        yield rewarder


def test_rewards_are_what_evaluate_says(rules: Rules, predict: Predict, ask: Ask) -> None:
    steps = ("3*4=12", "1+1=3", "so it is 12", "2+2=4")
    said = [
        predict("a", "12", steps=steps, num_new_tokens=10),
        predict("a", "13", 1, steps=("12+1=13",), num_new_tokens=90),
        predict("a", None, 2, completion="no idea", num_new_tokens=80),
        predict("a", "12", 3, finish_reason="length", num_new_tokens=LIMIT),
        predict("b", "twelve", reference="12.0"),
        predict("b", "12 apples", 1, reference="12.0", steps=("twelve", "of them")),
    ]
    traces = {"a": ask("a"), "b": ask("b", "12.0")}
    evaluation = rules("number", "exact")
    with Rewarder(evaluation, reward(WEIGHTS | {"exact": 2.0, "number": 0.0}), LIMIT) as rewarder:
        found = rewarder.rewards(said, traces)
    items = score(said, traces, evaluation).items
    assert [one.components["answer"] for one in found] == [float(item["correct"]) for item in items]
    for one, item in zip(found, items, strict=True):
        checks = item["step_checks"]
        assert one.components["exact"] == float(item["scores"]["exact"]["correct"])
        assert one.components["number"] == one.components["answer"]
        assert one.components["format"] == float(not item["malformed"] and item["finish_reason"] == "stop")
        right = checks["num_checked"] - checks["num_wrong"]
        assert one.components["steps"] == (right / checks["num_checked"] if checks["num_checked"] else 0)
    first = found[0]
    assert first.components["steps"] == pytest.approx(2 / 3) and first.components["format"] == 1
    assert first.total == pytest.approx(1.0 + 0.1 + 0.2 * 2 / 3 + 2.0)
    assert rewarder.failed == 0


@pytest.mark.parametrize(("tokens", "expected"), [(1, 0), (80, 0), (85, -0.25), (90, -0.5), (100, -1)])
def test_a_long_answer_pays_for_its_last_fifth(
    tokens: int, expected: float, rules: Rules, predict: Predict, ask: Ask
) -> None:
    """The numbers of DAPO's equation 13 with L_max = 100 and a cache of 20. Needs no child."""
    with Rewarder(rules(), reward({"length": 0.5}), LIMIT) as rewarder:
        (one,) = rewarder.rewards([predict("a", "12", num_new_tokens=tokens)], {"a": ask("a")})
    assert one == Reward(pytest.approx(0.5 * expected), {"length": pytest.approx(expected)})


def test_a_hostile_answer_costs_its_limit_and_becomes_nothing(near: Rewarder, predict: Predict, ask: Ask) -> None:
    answers = ["12", "sleep", "14", "leave", "eat", "nan", "12"]
    said = [predict("a", answer, place) for place, answer in enumerate(answers)]
    near.rewards(said[:1], {"a": ask("a")})
    begun = time.monotonic()
    found = near.rewards(said, {"a": ask("a")})
    assert [one.components["near.nearness"] for one in found] == [1, 0, 0.5, 0, 0, 0, 1]
    assert [one.total for one in found] == [1.5, 0, 0.5, 0, 0, 0, 1.5]
    assert near.failed == 4
    assert time.monotonic() - begun < 30


def test_what_the_user_has_to_mend_is_said(rules: Rules, predict: Predict, ask: Ask) -> None:
    with (
        Rewarder(rules(), reward({"answer": 1.0}), LIMIT) as rewarder,
        pytest.raises(DataError, match="prompt a: no reference"),
    ):
        rewarder.rewards([predict("a", "12", reference="")], {"a": ask("a", "")})


def test_a_scorer_that_always_fails_is_no_reward(near: Rewarder, predict: Predict, ask: Ask) -> None:
    """Prevents: hours of training on rewards that are all 0, because a scorer has a mistake."""
    said = [predict("a", text, place) for place, text in enumerate(("no", "forget"))]
    with pytest.raises(DataError, match=r"none of the first 2 answers has a verdict \(ValueError, no Match\)"):
        near.rewards(said, {"a": ask("a")})


def test_whether_any_answer_had_a_verdict_is_known_to_a_later_session(
    toy: EvaluationConfig, predict: Predict, ask: Ask
) -> None:
    """Prevents: a run that goes on ends where it would not have ended without the interrupt."""
    with Rewarder(toy, reward({"near.nearness": 1.0}), LIMIT, begun=True) as rewarder:
        (one,) = rewarder.rewards([predict("a", "no")], {"a": ask("a")})
    assert one.total == 0 and rewarder.failed == 1
