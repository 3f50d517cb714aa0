"""The answers to one prompt that were learned from, as labelled lines for a terminal, the best first."""

from __future__ import annotations

from tunix_rt.report.learning import reward_text
from tunix_rt.report.rollouts import Group
from tunix_rt.styled import Line
from tunix_rt.traces.rollout import Rollout


def headline(group: Group) -> str:
    """`sum-12: 8 answers, rewards from 0 to 1.1`."""
    best, worst = group.best.reward, group.worst.reward
    rewards = f"rewards from {worst:.4g} to {best:.4g}" if group.spread else f"every reward {best:.4g}"
    return f"{group.best.id}: {len(group.rollouts):,} answers, {rewards}"


def lines(group: Group) -> list[Line]:
    """Prompt, reference, and each different answer with what it was worth."""
    found = [Line("prompt", [(group.best.prompt.rstrip("\n"), "")])]
    alike: dict[tuple[str, float], list[Rollout]] = {}
    for rollout in group.rollouts:
        alike.setdefault((rollout.completion, rollout.reward), []).append(rollout)
    for place, same in enumerate(alike.values()):
        label = "best" if place == 0 else "worst" if place == len(alike) - 1 else ""
        found += _answer(label if group.spread else "", same)
    return [*found, Line("reference", [(group.best.reference or "none", "")])]


def _answer(label: str, same: list[Rollout]) -> list[Line]:
    first = same[0]
    style = "green" if first.advantage > 0 else "red" if first.advantage < 0 else ""
    times = f"  × {len(same)}" if len(same) > 1 else ""
    mark = "+" if first.advantage > 0 else "−" if first.advantage < 0 else ""
    text = first.completion or "(empty)"
    return [
        Line(label, [(text, style if first.completion else "dim")], mark),
        Line("", [(f"reward {reward_text(first)}{times}", "dim")]),
    ]
