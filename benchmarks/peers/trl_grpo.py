"""TRL's `GRPOTrainer` on the same prompts, with transformers' generation."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.grpo_case import GrpoCase
from benchmarks.peers.watch import settings, stopwatch, timed
from benchmarks.race import THREADS, Lap, Ready

SUM = re.compile(r"(\d+) \+ (\d+) \+ (\d+) = (\d+)")
"""A step of a worksheet."""


def trl_grpo(case: GrpoCase) -> Ready:
    """Laps of `trl.GRPOTrainer`."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(THREADS)
    examples = Dataset.from_list(_examples(case))
    tokenizer = AutoTokenizer.from_pretrained(case.model)

    def lap() -> Lap:
        with tempfile.TemporaryDirectory() as folder:
            model = AutoModelForCausalLM.from_pretrained(case.model, dtype=torch.float32)
            return _run_trainer(case, model, tokenizer, examples, Path(folder))

    return lap


def _examples(case: GrpoCase) -> list[dict[str, str]]:
    """Prompts of all steps of a lap, in the order of ours, with their reference answers."""
    from tunix_rt.batches.reader import Reader
    from tunix_rt.rollouts.prompts import PromptOrder

    config, traces = case.workload.config, case.workload.prepared().traces("train")
    reader, rollout = Reader.of(case.model, config.format), case.objective.rollout
    order = PromptOrder(len(traces), rollout.prompts_per_step, rollout.resample, config.training.seed)
    asked = [traces[place] for step in range(case.num_steps) for place in order.at(step)]
    return [{"prompt": reader.question(trace).prompt, "reference": trace.final_answer} for trace in asked]


def reward(completions: Sequence[str], reference: Sequence[str], **_: Any) -> list[float]:
    """1 for the right answer behind `Answer:`, and the share of right sums among the steps."""
    return [_right_sums(said) + _is_right(said, answer) for said, answer in zip(completions, reference, strict=True)]


def _is_right(said: str, answer: str) -> bool:
    return said.rpartition("Answer: ")[2].strip() == answer


def _right_sums(said: str) -> float:
    sums = [sum(map(int, found[:-1])) == int(found[-1]) for found in SUM.findall(said)]
    return sum(sums) / len(sums) if sums else 0.0


def _run_trainer(case: GrpoCase, model: Any, tokenizer: Any, examples: Any, folder: Path) -> Lap:
    from trl import GRPOConfig, GRPOTrainer

    rollout = case.objective.rollout
    arguments = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=rollout.prompts_per_step * rollout.samples_per_prompt,
        num_generations=rollout.samples_per_prompt,
        max_completion_length=rollout.max_new_tokens,
        max_steps=case.num_steps,
        loss_type="grpo",
        gradient_checkpointing=False,
        shuffle_dataset=False,
        **settings(case.workload.config) | {"logging_steps": 1},
    )
    watch = stopwatch(lambda: case.num_samples)
    trainer = GRPOTrainer(model, reward, arguments, examples, processing_class=tokenizer, callbacks=[watch])
    lap = timed(trainer, watch)
    names = {"tokens a sample": "completions/mean_length", "reward": "reward", "dead groups": "frac_reward_zero_std"}
    logged = [line for line in trainer.state.log_history if "reward" in line]
    return replace(lap, facts={own: float(np.mean([line[name] for line in logged])) for own, name in names.items()})
