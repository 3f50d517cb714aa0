"""A gate: whether a result is shown to be not worse than an earlier one, by more than may be."""

from __future__ import annotations

from dataclasses import dataclass

from tunix_rt.comparison.compare import compared
from tunix_rt.comparison.sides import Side
from tunix_rt.config.gate import GateConfig
from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject
from tunix_rt.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class GateResult:
    """How a run did at a gate."""

    passed: bool
    line: str
    """In words."""
    facts: JsonObject


def passes(run: RunFolder, against: RunFolder, gate: GateConfig) -> GateResult:
    """Non-inferiority: passed if the lower confidence bound of the paired difference is above -`must_not_drop_by`.

    The bound is one-sided, so `confidence` is the probability that it holds. Of a metric of which less is better, a
    drop is a rise. Raises InputError if the two cannot be compared, or neither more nor less of the metric is better.
    """
    found = compared((Side((against,)), Side((run,))), gate.metric)
    each, metric, sign = found.estimate, found.metric, found.metric.better
    if sign == 0:
        raise InputError(
            f"gate on {metric.name}: neither more nor less of it is better, so nothing is a drop; "
            "choose a metric that has a better side, such as accuracy, malformed_rate or steps.all_steps_right"
        )
    low, high = each.interval(2 * gate.confidence - 1)
    change, bound = sign * each.difference, low if sign > 0 else -high
    passed = bound > -gate.must_not_drop_by
    allowed = f"{metric.amount(gate.must_not_drop_by)} {metric.unit}"
    line = (
        f"gate {'passed' if passed else 'FAILED'}: {metric.name} {metric.shown(each.right)} of {run.name}, "
        f"{metric.shown(each.left)} of {against.name}: {metric.signed(sign * change)} {metric.unit}, with "
        f"{100 * gate.confidence:g} % confidence at most {metric.amount(min(bound, 0.0))} worse; "
        f"{allowed} are accepted"
    )
    facts: JsonObject = {"passed": passed, "metric": metric.name, "run": run.name, "against": against.name}
    facts |= {"now": each.right, "before": each.left, "difference": each.difference, "worst": -bound}
    facts |= {"must_not_drop_by": gate.must_not_drop_by, "confidence": gate.confidence}
    return GateResult(passed, line, facts)
