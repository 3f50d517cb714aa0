"""What the page shows of the answers that a run learned from: of chosen steps some prompts with all their answers."""

from __future__ import annotations

from statistics import fmean

from tunix_rt.files import JsonObject
from tunix_rt.report.html.curves import thin
from tunix_rt.report.learning import ENDS, REWARD
from tunix_rt.report.results import Results
from tunix_rt.report.rollouts import Group, groups_at, spaced
from tunix_rt.runs.log import MetricsLog
from tunix_rt.traces.rollout import Rollout, rollout_steps

MOST_STEPS = 24
MOST_PROMPTS = 12
"""Of a step, those whose answers differ most in reward."""
HEAD, TAIL = 1_200, 600
"""Characters shown of a longer completion: its end has the answer."""
FACTS = {
    "reward": REWARD,
    **{end.removeprefix("_"): REWARD + end for end in ENDS},
    "dead": "rollout/dead_groups",
    "truncated": "rollout/truncated",
    "length": "rollout/length",
    "entropy": "rollout/entropy",
    "kl": "rollout/kl",
}
"""Name in the page → metric of the step."""


def rollouts(results: Results) -> JsonObject | None:
    """`total` steps that sampled, the `curve` of their reward, and the shown `steps`; None if nothing was sampled."""
    run, log = results.trained, results.log
    there = rollout_steps(run.rollouts)
    if not there:
        return None
    facts = {name: dict(log.series(metric)) for name, metric in FACTS.items()}
    steps = [
        {
            "step": step,
            **{name: values[step] for name, values in facts.items() if step in values},
            **_shown(groups_at(run, step)),
        }
        for step in spaced(there, MOST_STEPS)
    ]
    return {"total": len(there), "curve": _curve(log), "steps": steps}


def _curve(log: MetricsLog) -> list[list[float]]:
    """Step, reward, and the ends of its interval where there is one."""
    lines = [thin(log.series(name)) for name in (REWARD, *(REWARD + end for end in ENDS))]
    known = [dict(line) for line in lines]
    return [[step, *(ends[step] for ends in known if step in ends)] for step, _ in lines[0]]


def _shown(groups: list[Group]) -> JsonObject:
    return {"prompts": len(groups), "groups": [_group(group) for group in groups[:MOST_PROMPTS]]}


def _group(group: Group) -> JsonObject:
    """One prompt; answers that are the same text stand there once, with their `count`."""
    alike: dict[tuple[object, ...], list[Rollout]] = {}
    for rollout in group.rollouts:
        alike.setdefault((rollout.completion, rollout.finish_reason, rollout.reward), []).append(rollout)
    return {
        "id": group.best.id,
        "prompt": group.best.prompt,
        "reference": group.best.reference,
        "mean": fmean(rollout.reward for rollout in group.rollouts),
        "spread": group.spread,
        "samples": [_sample(same) for same in alike.values()],
    }


def _sample(same: list[Rollout]) -> JsonObject:
    first = same[0]
    return {
        "count": len(same),
        "sample": first.sample,
        "completion": _middle_out(first.completion),
        "reward": first.reward,
        "rewards": first.rewards,
        "advantage": first.advantage,
        "cut": first.finish_reason == "length",
        "tokens": first.num_new_tokens,
    }


def _middle_out(text: str) -> str:
    left = len(text) - HEAD - TAIL
    return text if left <= 0 else f"{text[:HEAD]} … ({left:,} characters) … {text[-TAIL:]}"
