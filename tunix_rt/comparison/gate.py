"""A gate: whether a result is shown to be not worse than an earlier one, by more than may be."""

from __future__ import annotations

from dataclasses import dataclass

from tunix_rt.comparison.compare import Comparison, compared
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


def _too_few(found: Comparison, gate: GateConfig) -> str:
    """How many prompts would do, if the run is not shown to be worse and these are too few for so small a margin."""
    if found.estimate.differs() or gate.must_not_drop_by == 0:
        return ""
    needed = found.estimate.prompts_for(gate.must_not_drop_by, level=2 * gate.confidence - 1)
    if needed is None or needed <= found.estimate.prompts:
        return ""
    return (
        f"; it is not shown to be worse, but {found.estimate.prompts:,} prompts are too few: "
        f"an equal run passes with {needed:,} four times in five"
    )


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
        f"{allowed} are accepted{'' if passed else _too_few(found, gate)}"
    )
    facts: JsonObject = {"passed": passed, "metric": metric.name, "run": run.name, "against": against.name}
    facts |= {"now": each.right, "before": each.left, "difference": each.difference, "worst": -bound}
    facts |= {"must_not_drop_by": gate.must_not_drop_by, "confidence": gate.confidence}
    return GateResult(passed, line, facts)
