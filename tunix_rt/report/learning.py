"""The sections of `report.md` on learning from rewards and preferences: the curves, and answers of chosen steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tunix_rt.files import JsonObject
from tunix_rt.report.blocks import code, table
from tunix_rt.report.results import Results
from tunix_rt.report.rollouts import Group, groups_at, spaced
from tunix_rt.runs.log import MetricsLog
from tunix_rt.traces.rollout import Rollout, rollout_steps

REWARD = "rollout/reward"
ENDS = ("_low", "_high")
"""Behind the name of a metric: the ends of its 95 % interval."""
ROLLOUTS = {
    "dead_groups": "share of prompts whose answers teach nothing",
    "length": "tokens per answer",
    "truncated": "share of answers cut off",
    "entropy": "entropy, nats per token",
    "kl": "KL from the reference, nats per token",
    "clip_fraction": "share of tokens clipped",
    "ratio_max": "largest ratio to the sampler",
    "mismatch": "largest gap between sampler and trainer, nats",
    "resampled": "further prompts asked",
}
PREFERENCES = {
    "accuracy": "share of pairs in which the chosen answer is preferred",
    "margin": "margin between chosen and rejected",
    "chosen": "reward of the chosen answers",
    "rejected": "reward of the rejected answers",
    "kl": "KL from the reference",
}
SHARES = {"rollout/dead_groups": "prompts that teach nothing", "rollout/truncated": "answers cut off"}
"""Metrics drawn together → their labels."""
CHOSEN = 3
"""Steps whose answers stand side by side."""


def declared(config: JsonObject) -> list[str]:
    """`key=value` of everything that an objective other than `sft` declares."""
    objective = config.get("objective") or {}
    return [] if objective.get("kind") in (None, "sft") else [*_leaves("objective", objective)]


def _leaves(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from _leaves(f"{path}.{name}", inside)
    elif value is not None:
        yield f"{path}={value}"


def curve_titles(log: MetricsLog) -> dict[str, str]:
    """Metric → its title, of what an objective other than `sft` logs, in the order in which one asks for them."""
    components = [name for name in log.names() if name.startswith(f"{REWARD}_") and not name.endswith(ENDS)]
    titles = {REWARD: "reward"}
    titles |= {name: f"of it, {name.removeprefix(f'{REWARD}_')} (not weighted)" for name in components}
    titles |= {f"rollout/{name}": title for name, title in ROLLOUTS.items()}
    titles |= {f"preference/{name}": title for name, title in PREFERENCES.items()}
    titles |= {f"eval/preference_{name}": f"{title}, validation" for name, title in PREFERENCES.items()}
    known = set(log.names())
    return {name: title for name, title in titles.items() if name in known}


def loss_unit(log: MetricsLog) -> str:
    """What `train/loss` counts."""
    return "value of the objective" if curve_titles(log) else "nats per target token"


def section(results: Results) -> list[str]:
    """Lines of the section; none for a run that learned from traces alone."""
    titles = curve_titles(results.log)
    rows = [[title, _course(results.log, name)] for name, title in titles.items()]
    return (table(["", "first → last"], rows) if rows else []) + _side_by_side(results)


def _course(log: MetricsLog, name: str) -> str:
    """`0.31 [0.20, 0.44] (step 1) → 0.97 [0.90, 1.00] (step 40), best 1.00 (step 36)`."""
    series = log.series(name)
    low, high = (dict(log.series(name + end)) for end in ENDS)

    def shown(step: int, value: float) -> str:
        interval = f" [{low[step]:.3g}, {high[step]:.3g}]" if step in low and step in high else ""
        return f"{value:.4g}{interval} (step {step:,})"

    text = " → ".join(shown(*point) for point in dict.fromkeys((series[0], series[-1])))
    best = max(series, key=lambda point: point[1])
    return f"{text}; highest {best[1]:.4g} (step {best[0]:,})" if name == REWARD and best[0] != series[-1][0] else text


def _side_by_side(results: Results) -> list[str]:
    """Of chosen steps the prompt whose answers differ most in reward, with its best and its worst answer."""
    steps = rollout_steps(results.trained.rollouts)
    if not steps:
        return []
    chosen = spaced(steps, CHOSEN)
    groups = [groups_at(results.trained, step)[0] for step in chosen]
    rows = [
        ["prompt", *(_in_a_cell(group.best.prompt) for group in groups)],
        ["reference", *(_in_a_cell(group.best.reference) for group in groups)],
        *_answers("best", [group.best for group in groups]),
        *_answers("worst", [group.worst for group in groups]),
        ["rewards", *map(_rewards, groups)],
    ]
    what = f"Answers of {len(chosen)} of the {len(steps):,} steps with rollouts: the prompt whose answers differ most."
    return [what, "", *table(["", *(f"step {step:,}" for step in chosen)], rows)]


def _answers(title: str, rollouts: Sequence[Rollout]) -> list[list[str]]:
    return [
        [title, *(_in_a_cell(rollout.completion) for rollout in rollouts)],
        [f"{title}, reward", *map(reward_text, rollouts)],
    ]


def _in_a_cell(text: str) -> str:
    """Text of several lines in the one that a cell has."""
    return code(text.strip().replace("\n", " ↵ "))


def reward_text(rollout: Rollout) -> str:
    """`1.1 (answer 1, format 1), advantage +0.71, cut off`."""
    parts = ", ".join(f"{name} {value:.4g}" for name, value in rollout.rewards.items())
    cut = ", cut off" if rollout.finish_reason == "length" else ""
    return f"{rollout.reward:.4g} ({parts}), advantage {rollout.advantage:+.3g}{cut}"


def _rewards(group: Group) -> str:
    """Every reward of the prompt, the largest first: `1 ×3, 0 ×5`."""
    counts: dict[float, int] = {}
    for rollout in group.rollouts:
        counts[rollout.reward] = counts.get(rollout.reward, 0) + 1
    return ", ".join(f"{reward:.4g} ×{count}" for reward, count in counts.items())
