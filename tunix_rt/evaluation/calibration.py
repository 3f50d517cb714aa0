"""How sure the model was of the answer it gave, and whether it is right as often as it is sure.

Bins have equal width: they are the same in every run, and the field's figures have them (Guo et al. 2017, arXiv
1706.04599, section 2; Naeini et al. 2015, doi 10.1609/aaai.v29i1.9602). With bins of equal mass their bounds would
differ between runs, and answers that are all nearly certain would share out one confidence among several bins. There
are ten, since test sets are small; each has its interval. The error that is expected depends on the number of bins.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import ceil, exp, fsum
from operator import itemgetter

from boltons.iterutils import bucketize

from tunix_rt.evaluation.rates import Items, rate
from tunix_rt.files import JsonObject
from tunix_rt.traces.prediction import Prediction

BINS = 10


def confidence(prediction: Prediction, start: int | None, length: int) -> float | None:
    """The probability that the model gave to the text of `length` characters from `start` of its completion, after all
    that precedes it: that of the tokens that share a character with it. None if it cannot be told."""
    ends, logprobs = prediction.token_ends, prediction.logprobs
    if start is None or not ends or len(ends) != len(logprobs):
        return None
    starts = (0, *ends[:-1])
    shared = [
        logprob
        for first, end, logprob in zip(starts, ends, logprobs, strict=True)
        # A token that adds no character begins the one that comes next.
        if first < start + length and max(end, first + 1) > start
    ]
    return round(exp(fsum(shared)), 6) if shared else None


def calibration(items: Items) -> JsonObject:
    """The record for items with `confidence`, `correct` and `id`; empty if there is none.

    `ece`: expected calibration error, the mean of |accuracy - confidence| of the bins, each weighted with its items
    (Guo et al. 2017, equation 3). `brier`: the mean squared difference of confidence and verdict (Brier 1950).
    `bins`: those with items, each from above `low` to `high`. `selective`: accuracy of the most certain items, by
    the share of all that they are (Geifman and El-Yaniv 2017, arXiv 1705.08500: one minus the selective risk).
    """
    known = [item for item in items if item["confidence"] is not None]
    if not known:
        return {}
    bins = [_bin(number, group) for number, group in sorted(bucketize(known, _bin_of).items())]
    gaps = [record["n"] * abs(record["accuracy"]["value"] - record["confidence"]) for record in bins]
    return {
        "n": len(known),
        "ece": fsum(gaps) / len(known),
        "brier": statistics.fmean((item["confidence"] - item["correct"]) ** 2 for item in known),
        "bins": bins,
        "selective": _selective(known),
    }


def _bin_of(item: JsonObject) -> int:
    """The bin (i/10, (i+1)/10] of an item; 0 is in the first, as in scikit-learn's `calibration_curve`."""
    confidence: float = item["confidence"]
    return max(ceil(round(confidence * BINS, 9)) - 1, 0)


def _bin(number: int, items: Sequence[JsonObject]) -> JsonObject:
    return {
        "low": number / BINS,
        "high": (number + 1) / BINS,
        "n": len(items),
        "confidence": statistics.fmean(map(itemgetter("confidence"), items)),
        "accuracy": rate(items, itemgetter("correct")),
    }


def _selective(items: Items) -> list[JsonObject]:
    """A point for each tenth of the items. Those that are as certain as the last one of it are in it too."""
    ordered = sorted(items, key=itemgetter("confidence"), reverse=True)
    thresholds = [ordered[ceil(tenth * len(ordered) / 10) - 1]["confidence"] for tenth in range(1, 11)]
    points = []
    for threshold in dict.fromkeys(thresholds):
        kept = [item for item in ordered if item["confidence"] >= threshold]
        coverage = len(kept) / len(ordered)
        points.append({"coverage": coverage, "threshold": threshold, "accuracy": rate(kept, itemgetter("correct"))})
    return points
