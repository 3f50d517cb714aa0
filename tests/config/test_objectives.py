"""Objectives in a config: a file for each, and what is refused before anything starts."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.conftest import ROOT, config_of
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.config.section import hints_of, members
from tunix_rt.errors import ConfigError

TRAINED = ("model=smollm2_135m", "tokenizer=pretrained")
LORA = (*TRAINED, "model/adapter=lora")
TEACHER = "objective.teacher={kind: folder, path: teacher}"
PAIRS = ("dataset=files", "dataset.name=pairs", "dataset.source.train.path=pairs.jsonl")


def test_every_objective_has_a_file_and_names_its_paper() -> None:
    """By the kind it is called by; Dr. GRPO and others are further files of one kind."""
    files = {path.stem: path.read_text("utf-8") for path in (ROOT / "conf" / "objective").glob("[!_]*.yaml")}
    kinds = {
        section.__module__.rpartition(".")[2]: section for section in members(hints_of(ExperimentConfig)["objective"])
    }
    assert kinds.keys() <= files.keys()
    assert all(yaml.safe_load(text)["kind"] in kinds for text in files.values())
    assert {name for name, text in files.items() if not re.search(r"arXiv \d{4}\.\d{5}", text)} == {"sft"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["objective=rloo", "objective.rollout.samples_per_prompt=1", *TRAINED],
            "objective.rollout.samples_per_prompt: 1, but an advantage (leave_one_out) is over the other answers",
        ),
        (
            ["objective=grpo", "objective.reward.weights.answer=0", *TRAINED],
            "objective.reward.weights: all are 0: the reward would never vary",
        ),
        (
            ["objective=grpo", "objective.reward.weights={anwser: 1}", *TRAINED],
            "objective.reward.weights.anwser: no such component; one of answer, format, steps, length, or a scorer of "
            "evaluation.scorers: exact",
        ),
        (
            ["objective=rejection_sampling", "objective.reward.weights={answer: 0.5, length: 1}", *TRAINED],
            "objective.threshold: 1 is more than any answer can get from objective.reward.weights, 0.5",
        ),
        (["objective=grpo"], "model.source.kind: a fresh model answers with noise, of which objective=grpo learns"),
        (
            ["objective=dpo", "model.adapter.dropout=0.1", *LORA, *PAIRS],
            "model.adapter.dropout: objective=dpo weighs tokens by log-probabilities without dropout",
        ),
        (["objective=ipo"], "dataset.source.kind: generated problems have no rejected answers, which objective=ipo"),
        (["objective=dapo", "model.adapter.dropout=0.1", *LORA], "model.adapter.dropout: objective=grpo weighs tokens"),
        (
            ["objective=distill", TEACHER, "objective.rollout.max_new_tokens=128"],
            "objective.rollout.max_new_tokens: 128 leaves no room for a prompt in the model's 128 positions",
        ),
        (
            ["objective=grpo", "model=run", "model.source.experiment=quickstart", "tokenizer=pretrained",
             "objective.rollout.max_new_tokens=128"],
            "objective.rollout.max_new_tokens: 128 leaves no room for a prompt in the model's 128 positions",
        ),
        (
            ["objective=grpo", "backend=tunix", *TRAINED],
            "objective.rollout.batch_size: backend 'tunix' has one seed for a whole batch, so it samples one answer",
        ),
        (
            ["objective=grpo", "objective.rollout.top_p=0.9", *TRAINED],
            "objective.rollout.top_p: unknown key; leave it out: rollouts are sampled at temperature 1 from all tokens",
        ),
        (
            ["objective=grpo", "objective.beta=0.1", *TRAINED],
            "objective.beta: not a key of this kind, but of objective.kind=dpo or",
        ),
        (
            ["objective=grpo", "objective.rollout.num_generations=4", *TRAINED],
            "objective.rollout.num_generations: unknown key; did you mean 'samples_per_prompt'?",
        ),
        (["objective=distill"], "objective.teacher: missing: it has no default and must be given"),
        (
            ["objective=distill", "objective.teacher={kind: fresh}"],
            "objective.teacher.kind: got 'fresh', allowed: 'hub', 'folder', 'gguf', 'registry', 'run'",
        ),
        (
            ["objective=distill", "objective.teacher={kind: run, experiment: quickstat}"],
            "objective.teacher.experiment: no 'quickstat'; did you mean 'quickstart'?",
        ),
        (["objective=gpro"], "objective: no 'gpro'; did you mean 'grpo'?"),
    ],
)  # fmt: skip
def test_one_line_before_anything_starts(overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(overrides)
    assert str(caught.value).startswith(expected), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.adapter.dropout=0.1", *LORA],  # supervised fine-tuning has no other log-probabilities
        ["objective=distill", TEACHER, "objective.reward.weights.answer=0", "objective.samples=teacher"],  # fresh
        ["objective=grpo", "+objective.reward.weights={exact: 1, code.tests_passed: 0.5}", *TRAINED,
         "evaluation.scorers=[{kind: exact}, {kind: code, allow_execution: true}]"],
    ],
)  # fmt: skip
def test_what_is_allowed(overrides: list[str]) -> None:
    config_of(overrides)
