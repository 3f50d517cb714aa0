"""Learning from verdicts is the same on both backends: `rl_parity` in small here, at full size in the acceptance tier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import config_of
from tunix_rt.experiment import run
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog
from tunix_rt.traces.rollout import Rollout, read_rollouts

BACKENDS = ("torch", "jax")
SMALL = (
    "dataset.source.bits=4",
    "dataset.source.num_traces=16",
    "dataset.split={validation: 0.2, test: 0.2}",
    "hardware=cpu",
    "hardware.threads=1",
    "tracking=none",
)
LEARN = (
    "dataset=parity",
    "objective=dr_grpo",
    "objective.rollout={prompts_per_step: 4, samples_per_prompt: 4, max_new_tokens: 8}",
    "optimizer=finetune",
    "optimizer.learning_rate=1e-3",
    "schedule=constant",
    "training.max_steps=2",
    "training.row_length=null",
    "training.evaluate_every=null",
    "training.evaluate_samples=0",
)


def said(rollouts: list[Rollout]) -> list[tuple[Any, ...]]:
    """All but the log-probabilities, which differ in their last digits."""
    return [(r.id, r.sample, r.completion, r.ids, r.finish_reason, r.reward, r.advantage) for r in rollouts]


def rollouts_of(folder: Path, num_steps: int) -> list[list[tuple[Any, ...]]]:
    files = sorted(RunFolder(folder).rollouts.glob("step_*.jsonl"))
    assert len(files) >= num_steps
    return [said(read_rollouts(file)) for file in files[:num_steps]]


def series(folder: Path, name: str) -> list[float]:
    found = RunFolder(folder)
    return [value for _, value in MetricsLog(found.metrics_log, found.timings_log).series(name)]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: run(config_of(overrides)).folder


def test_rollouts_rewards_and_advantages_are_equal_on_both_backends(ran: Callable[..., Path]) -> None:
    steps = ("training.max_steps=60", "training.per_device_batch_size=4", "schedule.warmup_steps=5")
    begun = ran("+experiment=rl_parity_sft", "backend=torch", *SMALL, *steps)
    start = ("model=from_path", f"model.source.path={begun / 'model'}", "tokenizer=pretrained")
    folders = {name: ran(f"backend={name}", f"name={name}", *LEARN, *SMALL, *start) for name in BACKENDS}
    torch, jax = (rollouts_of(folders[name], 2) for name in BACKENDS)
    assert torch == jax
    assert len({text for step in torch for _, _, text, *_ in step}) > 2
    assert any(advantage for step in torch for *_, advantage in step)
    for name, most in (("train/grad_norm", 1e-4), ("train/loss", 1e-4)):
        assert series(folders["jax"], name) == pytest.approx(series(folders["torch"], name), rel=most, abs=1e-7)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_rl_parity_at_full_size(ran: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The curve of arXiv 2510.11495, and every sampled token of it equal, each backend with its own first stage."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # the programs run long enough to be worth their compilation
    folders = {name: ran("+experiment=rl_parity", f"backend={name}", "hardware=cpu") for name in BACKENDS}
    torch, jax = (rollouts_of(folders[name], 15) for name in BACKENDS)
    assert torch == jax
    for folder in folders.values():
        found = RunFolder(folder)
        before, after = (found.path / name for name in ("baseline_metrics.json", "metrics.json"))
        assert before.exists()
        assert after.exists()
        right = dict(MetricsLog(found.metrics_log, found.timings_log).series("eval/accuracy"))
        assert right[10] == 1.0
