"""`rl_parity` at full size: the curve of arXiv 2510.11495, and every sampled token of it on both backends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import Person
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog
from tunix_rt.traces.prediction import read_predictions
from tunix_rt.traces.rollout import read_rollouts

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]
BACKENDS = ("torch", "jax")
STEPS = 15


@pytest.fixture
def runs(work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, RunFolder]:
    """The run on each backend, each from its own first stage."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # the programs run long enough to be worth their compilation
    person, found = Person(work, capfd), {}
    for name in BACKENDS:
        words = ("+experiment=rl_parity", f"backend={name}", "hardware=cpu", "tracking=none", f"run.root={name}")
        done = person.starts(*words, timeout=600)
        assert done.code == 0, done.err
        (folder,) = (work / name / "rl_parity").iterdir()
        found[name] = RunFolder(folder)
    return found


def sampled(run: RunFolder, step: int) -> list[tuple[Any, ...]]:
    """All but the log-probabilities, which differ in their last digits."""
    rollouts = read_rollouts(run.rollouts / f"step_{step:08d}.jsonl")
    return [(r.key, r.completion, r.ids, r.finish_reason, r.reward, r.advantage) for r in rollouts]


def test_rollouts_are_equal_and_steps_are_found_to_pay(runs: dict[str, RunFolder]) -> None:
    for step in range(1, STEPS + 1):
        assert sampled(runs["torch"], step) == sampled(runs["jax"], step)
    for run in runs.values():
        before, after = (
            json.loads((run.path / f"{name}.json").read_text()) for name in ("baseline_metrics", "metrics")
        )
        assert before["accuracy"]["value"] < 0.6
        assert after["accuracy"]["value"] > 0.99
        lengths = [metrics["completion_tokens"]["mean"] for metrics in (before, after)]
        assert lengths == [1, 16]
        right = dict(MetricsLog(run.metrics_log, run.timings_log).series("eval/accuracy"))
        assert right[10] == 1.0
        assert {len(answer.steps) for answer in read_predictions(run.path / "predictions.jsonl")} == {15}
