"""What several samples of a prompt give together: pass@k, the majority's answer, and how many agree with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter

from tunix_rt.errors import DataError
from tunix_rt.evaluation.answers import vote_groups
from tunix_rt.evaluation.rates import Items, mean_of
from tunix_rt.evaluation.scorer import Scorer
from tunix_rt.evaluation.statistics import majority, pass_at_k
from tunix_rt.files import JsonObject


def pass_at(prompts: Mapping[str, Items], declared: Sequence[int]) -> JsonObject:
    """pass@k for each k that is declared; if none is, for every k that all prompts have samples for.

    Raises DataError if a prompt has fewer samples than a declared k.
    """
    most = min(map(len, prompts.values()), default=0)
    every = range(1, most + 1) if most > 1 else ()
    return {str(k): _pass_at(prompts, k) for k in declared or every if prompts}


def _pass_at(prompts: Mapping[str, Items], k: int) -> JsonObject:
    """Mean pass@k over the prompts."""
    short = next((name for name, group in prompts.items() if len(group) < k), None)
    if short is not None:
        raise DataError(f"prompt {short}: {len(prompts[short])} samples, pass@{k} needs at least {k}")
    total = sum(pass_at_k(len(group), sum(map(itemgetter("correct"), group)), k) for group in prompts.values())
    return mean_of(total, len(prompts))


def votes(prompts: Mapping[str, Items], scorer: Scorer) -> list[JsonObject]:
    """For each prompt its `id`, whether the most common answer is `correct`, and as `confidence` the share of the
    samples that gave it (self-consistency, Wang et al. 2022, arXiv 2203.11171); null if no sample has an answer.

    Ties go to the earlier sample.
    """
    return [_vote(name, sorted(group, key=itemgetter("sample")), scorer) for name, group in prompts.items()]


def _vote(name: str, samples: Items, scorer: Scorer) -> JsonObject:
    groups = vote_groups([item["extracted"] for item in samples], scorer)
    winner = majority(groups)
    if winner is None:
        return {"id": name, "correct": False, "confidence": None}
    agreeing = groups.count(groups[winner])
    return {"id": name, "correct": samples[winner]["correct"], "confidence": agreeing / len(samples)}


def against(ballots: Items, others: Items) -> JsonObject:
    """The majority of each prompt beside another answer to it: on how many prompts only one of them is right, the
    difference of the rates, and the probability of one so large by chance (exact McNemar test: McNemar 1947, doi
    10.1007/BF02295996)."""
    from scipy.stats import binomtest

    right = {item["id"]: item["correct"] for item in others}
    pairs = [(ballot["correct"], right[ballot["id"]]) for ballot in ballots if ballot["id"] in right]
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    difference = (gained - lost) / len(pairs) if pairs else None
    return {"n": len(pairs), "gained": gained, "lost": lost, "difference": difference, "p_value": p_value}
