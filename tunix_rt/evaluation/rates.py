"""Rates with their counts and 95 % Wilson intervals, and other plain numbers over items.

Samples of one prompt are not independent: an interval counts prompts, not samples, so that it is never too narrow (a
mean of values in [0, 1] varies at most as much as a rate with the same mean).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from math import ceil, floor
from operator import itemgetter

from boltons.iterutils import bucketize

from tunix_rt.evaluation.statistics import wilson
from tunix_rt.files import JsonObject

Items = Sequence[JsonObject]


def rate(items: Items, holds: Callable[[JsonObject], bool]) -> JsonObject:
    """Share of the items for which `holds` is true; value and interval are null if there are no items."""
    return rate_of(sum(map(holds, items)), len(items), len({item["id"] for item in items}))


def rate_of(k: int, n: int, prompts: int) -> JsonObject:
    """The rate of `k` in `n` items of so many `prompts`."""
    if n == 0:
        return {"value": None, "k": 0, "n": 0, "low": None, "high": None}
    low = wilson(k * prompts // n, prompts).low
    high = wilson(-(-k * prompts // n), prompts).high
    return {"value": k / n, "k": k, "n": n, "low": low, "high": high}


def mean_of(total: float, prompts: int) -> JsonObject:
    """The mean over prompts of values in [0, 1] with this sum; the interval spans those of the rates just below and
    above it."""
    low, high = wilson(floor(total), prompts).low, wilson(ceil(total), prompts).high
    return {"value": total / prompts, "n": prompts, "low": low, "high": high}


def by_slice(items: Items, key: str) -> JsonObject:
    """The rate of right answers by each value of a meta key."""
    groups: dict[str, Items] = bucketize(items, lambda item: item["slices"][key])
    return {value: rate(found, itemgetter("correct")) for value, found in sorted(groups.items())}


def lengths(items: Items) -> JsonObject:
    """Lengths of the answers that did not fail; the 95th percentile is the smallest length that 95 % do not exceed."""
    found = sorted(int(item["num_new_tokens"]) for item in items if item["finish_reason"] != "error")
    if not found:
        return {"mean": None, "median": None, "p95": None, "max": None}
    return {
        "mean": statistics.fmean(found),
        "median": statistics.median(found),
        "p95": found[ceil(0.95 * len(found)) - 1],
        "max": found[-1],
    }
