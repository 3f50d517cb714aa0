"""The dozen scores of a run that matter most, flat, for what shows one number per column (DVC, MLflow): `scores.json`.

`metrics.json` has all numbers, with their counts and intervals. Does not know how they were computed.
"""

from __future__ import annotations

from tunix_rt.files import JsonObject
from tunix_rt.runs.rates import number

FIRST = {"accuracy": "accuracy", "majority": "majority"}
"""Name of a score and its key in `metrics.json`. Behind these come pass@k for the largest k, then further scorers."""
THEN = {
    "stop_rate": "stop_rate",
    "malformed_rate": "malformed_rate",
    "error_rate": "error_rate",
    "all_steps_right": "steps.all_steps_right",
    "right_answer_wrong_steps": "steps.right_answer_wrong_steps",
    "wrong_answer_right_steps": "steps.wrong_answer_right_steps",
    "contradiction": "steps.contradiction",
    "accuracy_without_steps": "faithfulness.right.truncated.0",
    "expected_calibration_error": "calibration.ece",
    "brier": "calibration.brier",
    "completion_tokens": "completion_tokens.mean",
}


def scores(metrics: JsonObject) -> dict[str, float]:
    """The scores of a `metrics.json`, the most important first; what it does not have is left out.

    Rates and errors of calibration are in [0, 1]; `completion_tokens` is a mean; `missing` is there if answers are.
    """
    most = max(map(int, metrics.get("pass_at", {})), default=None)
    pass_at = {} if most is None else {f"pass_at_{most}": f"pass_at.{most}"}
    further = {f"right_by_{name}": f"scores.{name}" for name in metrics.get("scores", {})}
    keys = FIRST | pass_at | further | THEN
    found = {name: number(metrics, key) for name, key in keys.items()} | {"missing": metrics.get("missing") or None}
    return {name: float(value) for name, value in found.items() if value is not None}
