"""A run that learned from its own answers, written by hand: log and rollouts, with any number of steps.

`python -m tests.report.made_rollouts FOLDER [STEPS]` makes one to look at.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from tests.report.made import HOSTILE, made_run
from tunix_rt.files import JsonObject, read_json, write_json, write_jsonl
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.rollout import Rollout, rollouts_file, write_rollouts

WRITABLE = [text for text in HOSTILE if "\ud83d" not in text]
"""No tokenizer gives half a surrogate pair."""
EVERY = 10
ONLY_FOR_PAGES = ("faithfulness", "calibration", "steps")
"""Parts of `made.metrics_of` that lack what report.md needs."""


def rollout(step: int, prompt: int, sample: int, right: bool, cut: bool) -> Rollout:
    """A sum of two numbers in one step, right or ten too much; or one that does not end."""
    left, right_hand = 10 + 7 * prompt + step, 20 + 3 * prompt
    total = left + right_hand
    given = total if right else total + 10 * (1 + sample % 2)
    completion = "well, " * 40 if cut else f"{left} + {right_hand} = {given}\n#### {given}"
    return Rollout(
        id=f"sum-{step}-{prompt}",
        sample=sample,
        prompt=f"What is {left} + {right_hand}? Think step by step.\n",
        reference=str(total),
        completion=completion,
        answer=None if cut else str(given),
        steps=() if cut else (f"{left} + {right_hand} = {given}",),
        finish_reason="length" if cut else "stop",
        ids=tuple(range(len(completion) // 3)),
        logprobs=tuple(-0.25 for _ in range(len(completion) // 3)),
        reward=float(right and not cut) + 0.1 * (not cut),
        rewards={"answer": float(right and not cut), "format": float(not cut)},
        advantage=0.0,
        mismatch=4e-7,
    )


def rollouts_at(step: int, steps: int, prompts: int, samples: int) -> list[Rollout]:
    """The answers of a step, more of them right the later it is."""
    chance = random.Random(step)
    share = 0.2 + 0.75 * step / steps
    made: list[Rollout] = []
    for prompt in range(prompts):
        easy = chance.random() < 0.3
        group = [
            rollout(step, prompt, sample, easy or chance.random() < share, not easy and chance.random() < 0.05)
            for sample in range(samples)
        ]
        mean = sum(one.reward for one in group) / samples
        made += [Rollout(**{**one.to_json(), "advantage": round(one.reward - mean, 6)}) for one in group]
    return made


def line_of(step: int, made: list[Rollout]) -> JsonObject:
    """The log's line of a step."""
    number = len(made)
    mean = sum(one.reward for one in made) / number
    groups: dict[str, set[float]] = {}
    for one in made:
        groups.setdefault(one.id, set()).add(one.reward)
    return {
        "step": step,
        "train/loss": 0.4 / step - 0.01,
        "train/learning_rate": 1e-3,
        "train/grad_norm": 0.5,
        "rollout/reward": mean,
        "rollout/reward_low": mean - 0.09,
        "rollout/reward_high": min(mean + 0.09, 1.1),
        "rollout/reward_answer": sum(one.rewards["answer"] for one in made) / number,
        "rollout/reward_format": sum(one.rewards["format"] for one in made) / number,
        "rollout/dead_groups": sum(len(rewards) == 1 for rewards in groups.values()) / len(groups),
        "rollout/length": sum(len(one.ids) for one in made) / number,
        "rollout/truncated": sum(one.finish_reason == "length" for one in made) / number,
        "rollout/entropy": 0.8 / (1 + step / 20),
        "rollout/ratio_max": 1.0,
        "rollout/mismatch": 4e-7,
    }


def _answered(root: Path, name: str) -> RunFolder:
    """A run with answers, and the rates that a report has of any run."""
    run = made_run(root, prompts=12, name=name)
    for file in (run.metrics, run.baseline_metrics):
        kept = {
            key: value for key, value in read_json(file).items() if key not in ("faithfulness", "calibration", "steps")
        }
        write_json(file, kept | {"completion_tokens": {}})
    return run


def learned_run(root: Path, steps: int = 30, prompts: int = 8, samples: int = 6, name: str = "rl") -> RunFolder:
    """A finished run with rollouts at every step."""
    run = _answered(root, name)
    lines: list[JsonObject] = []
    for step in range(1, steps + 1):
        made = rollouts_at(step, steps, prompts, samples)
        write_rollouts(rollouts_file(run.rollouts, step), made)
        lines.append(line_of(step, made))
        if step % EVERY == 0:
            lines.append({"step": step, "eval/loss": 0.4 / step, "eval/accuracy": step / steps})
    write_jsonl(run.metrics_log, lines)
    write_jsonl(run.timings_log, [{"step": step, "time": 1.0 + step} for step in range(1, steps + 1)])
    return run


def preferred_run(root: Path, steps: int = 30, name: str = "dpo") -> RunFolder:
    """A finished run that learned from pairs."""
    run = _answered(root, name)
    lines: list[JsonObject] = []
    for step in range(1, steps + 1):
        chosen, rejected = -0.1 - step / 50, -0.1 - step / 8
        both = {"preference/chosen": chosen, "preference/rejected": rejected, "preference/margin": chosen - rejected}
        accuracy = min(1.0, 0.5 + step / 40)
        lines.append({"step": step, "train/loss": 0.69 / (1 + step / 10), "train/learning_rate": 1e-4, **both,
                      "preference/accuracy": accuracy})  # fmt: skip
        if step % EVERY == 0:
            lines.append({"step": step, "eval/loss": 0.5, "eval/preference_accuracy": accuracy})
    write_jsonl(run.metrics_log, lines)
    return run


def hostile_rollouts(root: Path) -> RunFolder:
    """A run whose rollouts try to get out of their place."""
    run = made_run(root, prompts=2, name="hostile-rl")
    plain = rollout(1, 0, 0, right=True, cut=False).to_json()
    texts = ("id", "prompt", "reference", "completion", "answer")
    made = [
        Rollout(**{**plain, **dict.fromkeys(texts, text), "steps": (text,), "rewards": {**plain["rewards"], text: 1.0}})
        for text in WRITABLE
    ]
    write_rollouts(rollouts_file(run.rollouts, 1), made)
    write_jsonl(run.metrics_log, [line_of(1, made) | {"rollout/reward_answer": 0.5}])
    return run


if __name__ == "__main__":
    learned_run(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    preferred_run(Path(sys.argv[1]))
