"""Confidence and calibration, against the definitions of the papers in numpy and against cases counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import exp, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunix_rt.config.results import EvaluationConfig
from tunix_rt.evaluation.calibration import calibration, confidence
from tunix_rt.evaluation.score import score
from tunix_rt.evaluation.statistics import wilson
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

Rules = Callable[..., EvaluationConfig]
Predict = Callable[..., Prediction]
Ask = Callable[..., Trace]


def items(pairs: list[tuple[float, bool]]) -> list[dict[str, Any]]:
    return [{"id": str(place), "confidence": sure, "correct": right} for place, (sure, right) in enumerate(pairs)]


def reference(pairs: list[tuple[float, bool]]) -> tuple[float, float, list[int]]:
    """ECE (torchmetrics' norm 'l1', bins closed at the right as in Guo's own code), Brier score, sizes of the bins."""
    sure, right = (np.array(column, float) for column in zip(*pairs, strict=True))
    bounds = np.arange(11) / 10
    error, sizes = 0.0, []
    for low, high in pairwise(bounds):
        inside = (sure > low) & (sure <= high) | ((low == 0) & (sure == 0))
        if inside.any():
            error += inside.mean() * abs(sure[inside].mean() - right[inside].mean())
            sizes.append(int(inside.sum()))
    return error, float(np.mean((sure - right) ** 2)), sizes


PAIRS = st.lists(st.tuples(st.integers(0, 1000).map(lambda n: n / 1000), st.booleans()), min_size=1, max_size=25)


@settings(max_examples=40)
@given(PAIRS)
def test_equal_to_the_definitions(pairs: list[tuple[float, bool]]) -> None:
    record = calibration(items(pairs))
    error, brier, sizes = reference(pairs)
    assert record["ece"] == pytest.approx(error, abs=1e-12) and record["brier"] == pytest.approx(brier, abs=1e-12)
    assert [found["n"] for found in record["bins"]] == sizes and sum(sizes) == record["n"] == len(pairs)
    assert all(found["low"] <= found["confidence"] <= found["high"] for found in record["bins"])


@settings(max_examples=40)
@given(PAIRS)
def test_every_point_of_the_risk_coverage_curve_is_a_threshold(pairs: list[tuple[float, bool]]) -> None:
    points = calibration(items(pairs))["selective"]
    for point in points:
        kept = [right for sure, right in pairs if sure >= point["threshold"]]
        assert point["coverage"] == len(kept) / len(pairs)
        assert (point["accuracy"]["k"], point["accuracy"]["n"]) == (sum(kept), len(kept))
    coverages = [point["coverage"] for point in points]
    assert coverages == sorted(set(coverages)) and coverages[-1] == 1


def test_by_hand() -> None:
    """Two sure and right, one sure and wrong, one unsure and right."""
    record = calibration(items([(0.9, True), (0.9, True), (0.9, False), (0.2, True)]))
    assert record["ece"] == pytest.approx(0.75 * abs(2 / 3 - 0.9) + 0.25 * abs(1 - 0.2))
    assert record["brier"] == pytest.approx((0.01 + 0.01 + 0.81 + 0.64) / 4)
    assert [(found["low"], found["high"], found["n"]) for found in record["bins"]] == [(0.1, 0.2, 1), (0.8, 0.9, 3)]
    assert record["bins"][1]["accuracy"]["low"] == wilson(2, 3).low
    assert [(point["coverage"], point["accuracy"]["k"]) for point in record["selective"]] == [(0.75, 2), (1.0, 3)]
    assert calibration(items([])) == {}


def test_confidence_is_of_the_tokens_that_share_a_character(predict: Predict) -> None:
    """`a日12;` in tokens `a`, three for `日`, `12`, `;`."""
    logprobs = tuple(log(value) for value in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4))
    said = predict("a", "日", completion="a日12;", logprobs=logprobs, token_ends=(1, 1, 1, 2, 4, 5))
    assert confidence(said, 1, 1) == round(0.8 * 0.7 * 0.6, 6)
    assert confidence(said, 3, 1) == 0.5, "a part of a token is not without the rest of it"
    assert confidence(said, 0, 5) == round(exp(sum(logprobs)), 6)
    assert confidence(said, None, 1) is None
    assert confidence(predict("a", "12", logprobs=logprobs), 0, 2) is None, (
        "an older file does not say where tokens end"
    )


def test_in_items_and_metrics(rules: Rules, predict: Predict, ask: Ask) -> None:
    sure = {"logprobs": (log(0.8), log(0.5)), "token_ends": (1, 2)}
    predictions = [predict("a", "12", **sure), predict("b", "13", **sure), predict("c", None)]
    result = score(predictions, {name: ask(name) for name in "abc"}, rules())
    assert [item["confidence"] for item in result.items] == [0.4, 0.4, None]
    assert result.metrics["calibration"]["n"] == 2 and result.metrics["calibration"]["ece"] == pytest.approx(0.1)
    assert "calibration" not in score([predict("a", "12")], {"a": ask("a")}, rules()).metrics


def test_agreement_of_samples_is_a_confidence_too(rules: Rules, predict: Predict, ask: Ask) -> None:
    answers = {"a": ["12", "12.0", "7"], "b": ["7", "7", "7"], "c": [None, None, None]}
    predictions = [predict(name, text, sample) for name, texts in answers.items() for sample, text in enumerate(texts)]
    metrics = score(predictions, {name: ask(name) for name in answers}, rules()).metrics
    assert [*metrics["pass_at"]] == ["1", "2", "3"], "every k without being asked"
    record = metrics["self_consistency"]
    assert [(found["confidence"], found["accuracy"]["k"]) for found in record["bins"]] == [(2 / 3, 1), (1.0, 0)]
    assert record["n"] == 2 and metrics["majority"]["n"] == 3
