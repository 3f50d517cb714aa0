"""What is logged of the rollouts of a step. All of it follows from their file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from tunix_rt.rollouts.learning import Group

Span = tuple[float, float]
LEVEL = 0.95


def rollout_metrics(asked: Sequence[Group], first: int, possible: Span) -> dict[str, float]:
    """The metrics `rollout/…` of a step's groups; `possible`: the least and the largest reward that there is.

    Rewards, lengths and dead groups are those of the `first` prompts alone, which were asked whatever came out: prompts
    that are asked because others had nothing to teach are no fair sample.
    """
    groups = asked[:first]
    rollouts = [rollout for group in groups for rollout in group]
    low, high = interval([statistics.fmean(rollout.reward for rollout in group) for group in groups], possible)
    found = {
        "reward": statistics.fmean(rollout.reward for rollout in rollouts),
        "reward_low": low,
        "reward_high": high,
        **{f"reward_{name}": statistics.fmean(r.rewards[name] for r in rollouts) for name in rollouts[0].rewards},
        "dead_groups": statistics.fmean(is_dead(group) for group in groups),
        "length": statistics.fmean(rollout.num_new_tokens for rollout in rollouts),
        "truncated": statistics.fmean(rollout.finish_reason == "length" for rollout in rollouts),
        "entropy": -statistics.fmean(value for rollout in rollouts for value in rollout.logprobs),
    }
    if len(asked) > first:
        found["resampled"] = float(len(asked) - first)
    return {f"rollout/{name}": value for name, value in found.items()} | mismatch(asked)


def mismatch(groups: Sequence[Group]) -> dict[str, float]:
    """The largest gap between sampler and trainer; empty if they were not compared."""
    gaps = [rollout.mismatch for group in groups for rollout in group if rollout.mismatch is not None]
    return {"rollout/mismatch": max(gaps)} if gaps else {}


def is_dead(group: Group) -> bool:
    """Whether nothing is learned from the samples of a prompt: under most objectives, if all got one reward."""
    return not any(rollout.advantage for rollout in group)


def interval(values: Sequence[float], possible: Span) -> Span:
    """The 95 % interval of the mean over prompts, whose samples belong together (Miller 2024, arXiv 2411.00640).

    As where runs are compared, two imaginary prompts are added, one with the least and one with the largest possible
    value: where all are right, the interval has not a width of 0.
    """
    from scipy.special import stdtrit

    mean, added = statistics.fmean(values), [*values, *possible]
    half = float(stdtrit(len(added) - 1, (1 + LEVEL) / 2)) * statistics.stdev(added) / math.sqrt(len(added))
    centre, (least, most) = statistics.fmean(added), possible
    return max(min(centre - half, mean), min(least, mean)), min(max(centre + half, mean), max(most, mean))


def possible_rewards(weights: Mapping[str, float]) -> Span:
    """The least and the largest reward: every component is in [0, 1], but `length`, a punishment in [-1, 0]."""
    ends = [sorted((0.0, -weight if name == "length" else weight)) for name, weight in weights.items()]
    return sum(low for low, _ in ends), sum(high for _, high in ends)
