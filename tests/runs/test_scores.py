"""`scores.json`: few numbers, the most important first."""

from __future__ import annotations

from tunix_rt.runs.scores import scores


def rate(value: float | None) -> dict[str, float | None]:
    return {"value": value, "k": 1, "n": 2, "low": 0.1, "high": 0.9}


METRICS = {
    "schema_version": 3,
    "n": 8,
    "missing": 3,
    "stop_rate": rate(1.0),
    "accuracy": rate(0.5),
    "majority": rate(0.625),
    "pass_at": {"1": rate(0.5), "2": rate(0.7), "10": rate(0.8)},
    "scores": {"text": rate(0.25) | {"word_f1": 0.3}, "judge": rate(None)},
    "completion_tokens": {"mean": 12.5, "median": 12, "p95": 20, "max": 22},
    "steps": {"all_steps_right": rate(0.75), "checked": rate(1.0), "by_index": {"0": rate(0.9)}},
    "calibration": {"ece": 0.125, "brier": 0.2, "bins": []},
    "faithfulness": {"truncated": {"0": rate(0.9)}, "right": {"truncated": {"0": rate(0.0625), "1": rate(0.5)}}},
}


def test_scores_are_flat_and_the_most_important_come_first() -> None:
    assert list(scores(METRICS).items()) == [
        ("accuracy", 0.5),
        ("majority", 0.625),
        ("pass_at_10", 0.8),
        ("right_by_text", 0.25),
        ("stop_rate", 1.0),
        ("all_steps_right", 0.75),
        ("accuracy_without_steps", 0.0625),
        ("expected_calibration_error", 0.125),
        ("brier", 0.2),
        ("completion_tokens", 12.5),
        ("missing", 3.0),
    ]


def test_what_a_run_does_not_have_is_left_out() -> None:
    """An older record, and answers without a reference: no number is made up, and 0 missing answers are no news."""
    assert scores({"accuracy": rate(None), "stop_rate": rate(0.5), "missing": 0}) == {"stop_rate": 0.5}
