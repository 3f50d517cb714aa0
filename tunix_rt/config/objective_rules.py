"""What an objective needs of the other sections, said before anything starts. Each rule as those of `schema.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict

from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.dataset import DatasetConfig, GeneratedSource
from tunix_rt.config.execution import BackendConfig
from tunix_rt.config.model import FreshModel, ModelConfig, ModelSource, RunModel, ScratchModel
from tunix_rt.config.objectives import ObjectiveConfig
from tunix_rt.config.results import EvaluationConfig
from tunix_rt.config.rollout import COMPONENTS

Mistake = tuple[str, str]
REWARDED = ("grpo", "rejection_sampling")
"""Objectives that learn nothing where no answer has another reward than the others."""


def dropout(objective: ObjectiveConfig, model: ModelConfig) -> Iterator[Mistake]:
    """Log-probabilities that are compared are those of one function (huggingface/trl pull request 3234)."""
    if objective.data != "traces" and model.adapter is not None and model.adapter.dropout > 0:
        what = f"objective={objective.kind} weighs tokens by log-probabilities without dropout, and would train others"
        yield "model.adapter.dropout", f"{what}: 0"


def pairs_in_data(objective: ObjectiveConfig, dataset: DatasetConfig) -> Iterator[Mistake]:
    """Nothing generated is worse than something else."""
    if objective.data == "pairs" and isinstance(dataset.source, GeneratedSource):
        what = f"generated problems have no rejected answers, which objective={objective.kind} learns from"
        remedy = "dataset=files with pairs, such as `python -m tunix_rt pairs RUN` makes of a run's own answers"
        yield "dataset.source.kind", f"{what}: {remedy}"


def groups(objective: ObjectiveConfig) -> Iterator[Mistake]:
    """An advantage is one over the other answers to a prompt."""
    if objective.kind == "grpo" and objective.rollout.samples_per_prompt < 2:
        what = f"1, but an advantage ({objective.advantage}) is over the other answers to a prompt: 2 or more"
        yield "objective.rollout.samples_per_prompt", what


def reward_components(objective: ObjectiveConfig, evaluation: EvaluationConfig) -> Iterator[Mistake]:
    """Each is one of ours, or a scorer that is there, or a number of one."""
    if objective.data != "rollouts":
        return
    kinds = [scorer.kind for scorer in evaluation.scorers]
    for name in objective.reward.weights:
        if name not in COMPONENTS and name.partition(".")[0] not in kinds:
            there = f"one of {', '.join(COMPONENTS)}, or a scorer of evaluation.scorers: {', '.join(kinds)}"
            yield f"objective.reward.weights.{name}", f"no such component; {there}"


def rewards_vary(objective: ObjectiveConfig) -> Iterator[Mistake]:
    """Something can be learned from rewards."""
    if objective.kind not in REWARDED:
        return
    weights = objective.reward.weights
    if not any(weights.values()):
        yield "objective.reward.weights", "all are 0: the reward would never vary, and nothing be learned"
    elif objective.kind == "rejection_sampling" and objective.threshold > most(weights):
        what = f"{objective.threshold:g} is more than any answer can get from objective.reward.weights"
        yield "objective.threshold", f"{what}, {most(weights):g}: nothing would be learned"


def most(weights: Mapping[str, float]) -> float:
    """The largest reward that there is: components are from 0 to 1, `length` from -1 to 0, numbers of scorers any."""
    if any("." in name and weight for name, weight in weights.items()):
        return float("inf")
    # Rounded as `Rewarder` may round it.
    return sum(max(-weight if name == "length" else weight, 0.0) for name, weight in weights.items()) + 1e-9


def able_to_answer(objective: ObjectiveConfig, model: ModelConfig) -> Iterator[Mistake]:
    """Verdicts on noise are all the same."""
    if objective.kind in REWARDED and isinstance(model.source, FreshModel | ScratchModel):
        what = f"a fresh model answers with noise, of which objective={objective.kind} learns nothing"
        remedy = "model=run model.source.experiment=NAME tokenizer=pretrained"
        yield "model.source.kind", f"{what}: begin with a trained one, such as {remedy}"


def room_for_answers(objective: ObjectiveConfig, model: ModelConfig) -> Iterator[Mistake]:
    """A prompt and its longest answer fit into the model, as far as that is known before its weights are."""
    positions = positions_of(model.source)
    if objective.data == "rollouts" and positions is not None and objective.rollout.max_new_tokens >= positions:
        what = f"{objective.rollout.max_new_tokens} leaves no room for a prompt in the model's {positions} positions"
        yield "objective.rollout.max_new_tokens", what


def positions_of(source: ModelSource) -> int | None:
    """Positions of a model that is drawn, here or in an earlier experiment; None if unknown."""
    if isinstance(source, FreshModel):
        return source.max_position_embeddings
    drawn = source.drawn if isinstance(source, RunModel) else {}
    config = source.config if isinstance(source, ScratchModel) else drawn.get("config", drawn)
    found = config.get("max_position_embeddings", config.get("n_positions"))
    return found if isinstance(found, int) else None


def rollouts_of_backend(objective: ObjectiveConfig, backend: BackendConfig) -> Iterator[Mistake]:
    """A batch of sampled answers needs a seed for each."""
    if objective.data == "rollouts" and objective.rollout.batch_size > 1 and not BACKENDS[backend.name].seed_per_prompt:
        what = f"backend {backend.name!r} has one seed for a whole batch, so it samples one answer at a time: "
        others = ", backend=".join(name for name, facts in BACKENDS.items() if facts.seed_per_prompt)
        yield "objective.rollout.batch_size", f"{what}objective.rollout.batch_size=1, or one of backend={others}"


def whole_weights(objective: ObjectiveConfig, dataset: DatasetConfig) -> Iterator[Mistake]:
    """Of a pair a token counts, or it does not."""
    if objective.data == "pairs":
        for name, weight in asdict(dataset.loss_weights).items():
            if weight not in (0, 1):
                what = f"{weight:g}, but objective={objective.kind} counts a token or does not: 0 or 1"
                yield f"dataset.loss_weights.{name}", what


OBJECTIVE_RULES: tuple[Callable[..., Iterator[Mistake]], ...] = (
    dropout,
    pairs_in_data,
    groups,
    reward_components,
    rewards_vary,
    able_to_answer,
    room_for_answers,
    rollouts_of_backend,
    whole_weights,
)
