"""Runs of one experiment on several numbers of devices, and how far they are from each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.backends.team import weights_in
from tests.conftest import TOY
from tunix_rt.traces.prediction import read_predictions
from tunix_rt.traces.rollout import Rollout, read_rollouts

SFT = (*TOY, "training.max_steps=5", "training.evaluate_every=5", "dataset.limit.test=6", "generation.batch_size=2")
"""Rows and prompts that neither 2 nor 4 devices have equally many of."""
ROLLOUTS = (
    *(*SFT, "model=from_path", "model.source.path=base", "tokenizer=pretrained", "training.max_steps=3"),
    *("training.evaluate_every=3", "objective=grpo", "objective.rollout.prompts_per_step=3"),
    *("objective.rollout.samples_per_prompt=3", "objective.rollout.batch_size=4", "objective.rollout.resample=1"),
    *("objective.reward.weights={format: 1.0, length: 0.5, answer: 1.0}", "evaluation.extract=[last_number]"),
)
"""The answers of a model that has learned nothing differ in their length, and so in their reward."""
MAIN = """
import json, sys
from tunix_rt.__main__ import main
for words in json.load(sys.stdin):
    code = main(words)
    if code:
        sys.exit(code)
"""
TOLERANCE = {"loss": 1e-6, "norm": 1e-5, "model": 1e-5}
ROUNDING = "rollout/mismatch"
"""A measure that is itself a rounding of log-probabilities: only below 1e-5."""
Mesh = tuple[int, int, int]


def words_for(mesh: Mesh) -> list[str]:
    """Of data × shard × tensor devices; the run has a root of its own, `root_of(mesh)`."""
    data, shard, tensor = mesh
    return [
        f"hardware.devices={data * shard * tensor}",
        f"hardware.mesh={{data: {data}, shard: {shard}, tensor: {tensor}}}",
        f"run.root={root_of(mesh)}",
    ]


def root_of(mesh: Mesh) -> str:
    return "runs_{}_{}_{}".format(*mesh)


def types(*commands: Sequence[str], timeout: float = 500) -> None:
    """Run command lines one after the other in one process of its own. On jax the first one has the most devices."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        input=json.dumps([list(words) for words in commands]),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr


def run_in(root: str) -> Path:
    """The only run below a root."""
    (found,) = Path(root).glob("*/*/status.json")
    return found.parent


def check_same(found: Path, expected: Path, tolerance: dict[str, float] = TOLERANCE) -> dict[str, float]:
    """Every line of the log within `tolerance`, the texts, the verdicts and the metrics equal, the model near.

    Returns the largest relative difference of each kind.
    """
    seen = {"loss": 0.0, "norm": 0.0, "model": 0.0}
    mine, theirs = log_of(found), log_of(expected)
    assert [sorted(line) for line in mine] == [sorted(line) for line in theirs]
    for name, value, wanted in _values(mine, theirs):
        kind = "norm" if name == "train/grad_norm" else "loss"
        seen[kind] = max(seen[kind], abs(value - wanted) / max(abs(wanted), 1e-3))
    assert all(value < 1e-5 for line in mine for name, value in line.items() if name == ROUNDING)
    assert texts(found) == texts(expected)
    for name in ("metrics.json", "items.jsonl"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    seen["model"] = distance(found / "model", expected / "model")
    assert all(seen[kind] <= tolerance[kind] for kind in seen), seen
    return seen


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]


def _values(mine: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> Iterator[tuple[str, float, float]]:
    for one, other in zip(mine, theirs, strict=True):
        for name, value in one.items():
            if name != ROUNDING:
                yield name, value, other[name]


def texts(run: Path) -> list[tuple[Any, ...]]:
    """All of the answers but their log-probabilities, which differ in their last digits."""
    return [
        (answer.id, answer.sample, answer.completion, answer.finish_reason, answer.num_new_tokens)
        for answer in read_predictions(run / "predictions.jsonl")
    ]


def sampled(run: Path) -> list[tuple[Any, ...]]:
    """All of the rollouts but their log-probabilities."""
    found: list[Rollout] = [r for file in sorted((run / "rollouts").glob("*.jsonl")) for r in read_rollouts(file)]
    return [(r.key, r.prompt, r.completion, r.ids, r.finish_reason, r.reward, r.advantage) for r in found]


def distance(folder: Path, expected: Path) -> float:
    """The largest relative distance of a tensor, over the norm of the expected one."""
    found, wanted = weights_in(folder), weights_in(expected)
    assert found.keys() == wanted.keys()
    return max(float(np.linalg.norm(found[name] - w) / np.linalg.norm(w)) for name, w in wanted.items())
