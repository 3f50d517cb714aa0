"""The complete experiment as one frozen value, and the rules that hold across its sections."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from typing import Annotated

from annotated_types import Ge, MinLen

from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.dataset import ArithmeticSource, DatasetConfig
from tunix_rt.config.execution import (
    BackendConfig,
    CheckpointConfig,
    HardwareConfig,
    RunConfig,
    SweepConfig,
    TrackingConfig,
)
from tunix_rt.config.format import FormatConfig
from tunix_rt.config.model import FreshModel, ModelConfig, ScratchModel, TokenizerConfig
from tunix_rt.config.results import EvaluationConfig, GenerationConfig
from tunix_rt.config.section import Execution, section
from tunix_rt.config.training import OptimizerConfig, ScheduleConfig, TrainingConfig, schedule_mistake

Mistake = tuple[str, str]
"""Dotted path; what is wrong and what to do."""


@section
class ExperimentConfig:
    """What `conf/` composes. `identity.STAGES` says which sections each stage takes."""

    name: Execution[Annotated[str, MinLen(1)]]
    seed: Annotated[int, Ge(0)]
    """Value of `training.seed` and `generation.seed` if they are null (`SEEDED`); `dataset.seed` defaults to 0,
    so that a sweep over `seed` compares on one test set."""
    debug: Execution[bool]
    """Show tracebacks."""
    backend: BackendConfig
    model: ModelConfig
    tokenizer: TokenizerConfig
    dataset: DatasetConfig
    format: FormatConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    training: TrainingConfig
    generation: GenerationConfig
    evaluation: EvaluationConfig
    hardware: HardwareConfig
    checkpoint: CheckpointConfig
    tracking: TrackingConfig
    run: RunConfig
    sweep: SweepConfig


SEEDED = ("dataset", "training", "generation")
"""Sections whose `seed`, if missing (as in records of version 0.1) or null, is the experiment's."""


def names(name: str, dataset: DatasetConfig) -> Iterator[Mistake]:
    """Names must be usable as folder names."""
    allowed = set(string.ascii_letters + string.digits + "_-.")
    for path, value in (("name", name), ("dataset.name", dataset.name)):
        if not set(value) <= allowed or value.startswith("."):
            yield path, f"{value!r} names a folder: letters, digits, '_', '-' and '.' only"


def platform_of_backend(backend: BackendConfig, hardware: HardwareConfig) -> Iterator[Mistake]:
    """A backend cannot run everywhere."""
    platforms = ("auto", *BACKENDS[backend.name].platforms)
    if hardware.platform not in platforms:
        yield (
            "hardware.platform",
            f"backend {backend.name!r} cannot run on {hardware.platform!r}; one of {', '.join(platforms)}",
        )


def backend_capabilities(backend: BackendConfig, model: ModelConfig, generation: GenerationConfig) -> Iterator[Mistake]:
    """Refuses what a backend lacks; the family of pretrained weights is checked once they are read."""
    facts = BACKENDS[backend.name]
    instead = f"or one of backend={', backend='.join(name for name in BACKENDS if name != backend.name)}"
    if model.adapter is not None and not facts.adapters:
        yield "model.adapter", f"backend {backend.name!r} does not support LoRA: model/adapter=none, {instead}"
    family = model.source.config.get("model_type") if isinstance(model.source, ScratchModel) else None
    if family is not None and facts.families is not None and family not in facts.families:
        yield (
            "model.source.config.model_type",
            f"backend {backend.name!r} does not compute {family!r}: one of {', '.join(facts.families)}, {instead}",
        )
    if generation.temperature > 0 and generation.batch_size > 1 and not facts.seed_per_prompt:
        yield (
            "generation.batch_size",
            f"backend {backend.name!r} has one seed for a whole batch, so it samples one prompt at a time: "
            f"generation.batch_size=1, generation.temperature=0, {instead}",
        )


def tokenizer_of_model(model: ModelConfig, tokenizer: TokenizerConfig, format: FormatConfig) -> Iterator[Mistake]:
    """Pretrained weights bring their tokenizer; fresh ones need a new one."""
    if isinstance(model.source, FreshModel | ScratchModel):
        if tokenizer.kind == "pretrained":
            yield (
                "tokenizer.kind",
                "a fresh model has no tokenizer of its own: tokenizer=char or tokenizer=bpe",
            )
        if format.kind in ("chat", "think_chat"):
            instead = "think" if format.kind == "think_chat" else "plain"
            yield "format.kind", f"a fresh model's tokenizer has no chat template: format={instead}"
    elif tokenizer.kind != "pretrained":
        yield "tokenizer.kind", "pretrained weights go with their own tokenizer: tokenizer=pretrained"


def tokens_added(tokenizer: TokenizerConfig) -> Iterator[Mistake]:
    """Added tokens are distinct, and none of them is one that a trained tokenizer already has."""
    given = tokenizer.added_tokens
    own = () if tokenizer.kind == "pretrained" else ("<pad>", "<end>")
    for text in dict.fromkeys(given):
        if given.count(text) > 1 or text in own:
            yield "tokenizer.added_tokens", f"{text!r} is there already; name each new token once"


def tokens_learned(model: ModelConfig, tokenizer: TokenizerConfig) -> Iterator[Mistake]:
    """An adapter never trains the embeddings, so no tokens can be added."""
    if model.adapter is not None and tokenizer.kind == "pretrained" and tokenizer.added_tokens:
        yield (
            "tokenizer.added_tokens",
            "with model.adapter the embeddings stay as they are, so new tokens would never be learned: "
            "add none, or train every weight (model/adapter=none)",
        )


def learnable(dataset: DatasetConfig) -> Iterator[Mistake]:
    """Some traces must remain to train on, and something in them to learn."""
    weights = dataset.loss_weights
    if weights.prompt == weights.previous_turns == weights.steps == weights.answer == weights.end == 0:
        yield "dataset.loss_weights", "all are 0: nothing would be learned"
    if dataset.split.validation + dataset.split.test >= 1:
        yield "dataset.split", "validation + test must be below 1: something must be left to train on"


def previous_turns(dataset: DatasetConfig, format: FormatConfig) -> Iterator[Mistake]:
    """Only a conversation has previous turns to learn from."""
    if dataset.loss_weights.previous_turns > 0 and format.kind not in ("chat", "think_chat"):
        yield (
            "dataset.loss_weights.previous_turns",
            f"format.kind {format.kind!r} writes no previous turns: 0, or format=chat or format=think_chat",
        )


def problems_in_words(dataset: DatasetConfig) -> Iterator[Mistake]:
    """Refuses what the generator of word problems cannot produce."""
    source = dataset.source
    if isinstance(source, ArithmeticSource) and source.wording == "words":
        if source.num_traces is None:
            yield "dataset.source.num_traces", "wording=words needs a number"
        if source.operation == "multiply" and 1 not in source.digits:
            yield "dataset.source.digits", "multiplication in words needs one operand of one digit"


def lengths(model: ModelConfig, dataset: DatasetConfig, training: TrainingConfig) -> Iterator[Mistake]:
    """A trace must fit into a row, and a row's trace into the model."""
    longest, row = dataset.max_length, training.row_length
    if row is not None and longest is not None and row < longest:
        yield "training.row_length", f"{row} is shorter than dataset.max_length {longest}"
    if isinstance(model.source, FreshModel):
        positions = model.source.max_position_embeddings
        if longest is not None and longest > positions:
            yield "dataset.max_length", f"{longest} exceeds model.source.max_position_embeddings {positions}"


def phases(schedule: ScheduleConfig, training: TrainingConfig) -> Iterator[Mistake]:
    """Warm-up and decay must fit into training; with `num_epochs`, this is known only from the prepared data."""
    mistake = None if training.max_steps is None else schedule_mistake(schedule, training.max_steps)
    if mistake is not None:
        yield mistake


def enough_samples(generation: GenerationConfig, evaluation: EvaluationConfig) -> Iterator[Mistake]:
    """pass@k is estimated from at least k samples."""
    samples = generation.num_return_sequences
    for k in evaluation.pass_at:
        if k > samples:
            yield (
                "evaluation.pass_at",
                f"pass@{k} needs generation.num_return_sequences >= {k}, which is {samples}",
            )


RULES: tuple[Callable[..., Iterator[Mistake]], ...] = (
    names,
    platform_of_backend,
    backend_capabilities,
    tokenizer_of_model,
    tokens_added,
    tokens_learned,
    learnable,
    previous_turns,
    problems_in_words,
    lengths,
    phases,
    enough_samples,
)
"""Each takes the sections its parameters name, so `load` can apply those whose sections are sound."""
