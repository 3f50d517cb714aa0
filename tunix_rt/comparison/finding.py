"""What can be said of a difference: better, worse, equivalent, or no evidence, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from tunix_rt.comparison.metric import Metric
from tunix_rt.comparison.statistics import LEVEL, Estimate, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The difference of a right side from a left one in one metric."""

    metric: Metric
    estimate: Estimate
    margin: float | None = None
    """A smaller difference than this does not matter, as declared."""

    def verdict(self) -> str:
        """`better`, `worse` (`higher`, `lower` of a metric that is neither), `equivalent`, or `no evidence`."""
        if self.estimate.differs():
            higher = self.estimate.difference > 0
            if self.metric.better == 0:
                return "higher" if higher else "lower"
            return "better" if higher == (self.metric.better > 0) else "worse"
        equivalent = self.margin is not None and self.estimate.equivalent(self.margin)
        return "equivalent" if equivalent else "no evidence"

    def sentence(self) -> str:
        """What can be said, in one sentence."""
        found, metric, verdict = self.estimate, self.metric, self.verdict()
        if verdict == "no evidence":
            by = f"{metric.signed(found.difference)} {metric.unit}"
            return f"no evidence of a difference: {by} {self._span(found.interval())}{self._not_worse()}"
        within = "" if self.margin is None else f"within {metric.amount(self.margin)} {metric.unit}"
        if verdict == "equivalent":
            spread = self._span(found.interval(2 * LEVEL - 1))
            return f"equivalent {within}: {metric.signed(found.difference)} {metric.unit}, 90 % interval {spread}"
        size = _larger(found.interval())
        also = f", equivalent {within}" if self.margin is not None and found.equivalent(self.margin) else ""
        return f"{verdict} by {metric.amount(found.difference)} {metric.unit} {self._span(size)}{also}"

    def not_worse(self) -> bool | None:
        """Non-inferiority: whether it is at most `margin` worse, by a one-sided test; None without a margin."""
        if self.margin is None or self.metric.better == 0:
            return None
        low, high = self.estimate.interval(2 * LEVEL - 1)
        return low > -self.margin if self.metric.better > 0 else high < self.margin

    def _not_worse(self) -> str:
        if self.margin is None or (found := self.not_worse()) is None:
            return ""
        amount = f"{self.metric.amount(self.margin)} {self.metric.unit}"
        return f"; {'not worse' if found else 'it may be worse'} by more than {amount}"

    def _span(self, span: Span) -> str:
        if self.metric.rate:
            return f"[{100 * span[0] + 0.0:.1f}, {100 * span[1] + 0.0:.1f}]".replace("-0.0", "0.0")
        return f"[{span[0]:.4g}, {span[1]:.4g}]"


def _larger(span: Span) -> Span:
    """The interval of the size of a difference."""
    return span if span[0] > 0 else (-span[1], -span[0])
