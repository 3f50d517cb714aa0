"""The complete experiment as one frozen value, and the rules that hold across its sections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tunix_rt.config.choices import BACKENDS, SPLIT_BY_TYPE
from tunix_rt.config.dataset import ArithmeticSource, DatasetConfig, GeneratedSource, MixtureSource
from tunix_rt.config.execution import (
    BackendConfig,
    CheckpointConfig,
    HardwareConfig,
    RunConfig,
    SweepConfig,
    TrackingConfig,
)
from tunix_rt.config.format import FormatConfig, asks_for_answer
from tunix_rt.config.model import FreshModel, ModelConfig, RunModel, ScratchModel, TokenizerConfig
from tunix_rt.config.objective_rules import OBJECTIVE_RULES
from tunix_rt.config.objectives import ObjectiveConfig
from tunix_rt.config.optimizers import NEEDS_WHOLE_TENSORS, OptimizerConfig
from tunix_rt.config.results import EvaluationConfig, GenerationConfig
from tunix_rt.config.section import Execution, Natural, Text, section
from tunix_rt.config.training import ScheduleConfig, TrainingConfig, schedule_mistake

MEND_MESH = "the product of hardware.mesh.data, .shard and .tensor is their number; -1 is what is left"
Mistake = tuple[str, str]
"""Dotted path; what is wrong and what to do."""


@section
class ExperimentConfig:
    """What the files of `conf/` and the overrides make together."""

    name: Execution[Text]
    """Names the folder of the runs: `<run.root>/<name>/<identity>/`."""
    seed: Natural
    """Value of `training.seed` and `generation.seed` if they are null; `dataset.seed` defaults to 0,
    so that a sweep over `seed` compares on one test set."""
    debug: Execution[bool]
    """Show tracebacks."""
    backend: BackendConfig
    model: ModelConfig
    tokenizer: TokenizerConfig
    """How text becomes tokens: one that is trained here, or the pretrained model's own."""
    dataset: DatasetConfig
    format: FormatConfig
    """How a trace is written as text, and how the model's text is read."""
    objective: ObjectiveConfig
    """What training makes small: the error on traces or preferences, or the loss of verdicts on its own answers."""
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    """How the learning rate changes over the steps."""
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
CHATS = {"chat": "plain", "think_chat": "think"}
"""Formats that need a chat template → the same without one."""


def names(name: str, dataset: DatasetConfig) -> Iterator[Mistake]:
    """Names must be usable as folder names."""
    for path, value in (("name", name), ("dataset.name", dataset.name)):
        if re.fullmatch(r"(?!\.)[A-Za-z0-9_.-]+", value) is None:
            yield path, f"{value!r} names a folder: letters, digits, '_', '-' and '.' only"


def platform_of_backend(backend: BackendConfig, hardware: HardwareConfig) -> Iterator[Mistake]:
    """A backend cannot run everywhere."""
    platforms = ("auto", *BACKENDS[backend.name].platforms)
    if hardware.platform not in platforms:
        there = f"backend {backend.name!r} cannot run on {hardware.platform!r}"
        yield "hardware.platform", f"{there}; one of {', '.join(platforms)}"


def devices(backend: BackendConfig, hardware: HardwareConfig, model: ModelConfig) -> Iterator[Mistake]:
    """Their number fills the mesh, and heads can be shared out. Of `all` only the backend knows how many."""
    count, mesh, source = hardware.num_devices, hardware.mesh, model.source
    if isinstance(hardware.devices, tuple) and len(set(hardware.devices)) < len(hardware.devices):
        yield "hardware.devices", f"names a device twice: {', '.join(map(str, hardware.devices))}"
    if not BACKENDS[backend.name].devices and (count != 1 or max(mesh.data, mesh.shard, mesh.tensor) > 1):
        yield "hardware.devices", f"backend {backend.name!r} computes on one: 1, or backend=jax, or backend=torch"
    if count is not None and mesh.filled(count) is None:
        what = f"data {mesh.data} x shard {mesh.shard} x tensor {mesh.tensor}"
        yield "hardware.mesh", f"{what} cannot be filled by {count} devices (hardware.devices); {MEND_MESH}"
    if isinstance(source, FreshModel):
        for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
            number = getattr(source, name, None)
            if number is not None and number % mesh.tensor:
                yield "hardware.mesh.tensor", f"{mesh.tensor} does not divide model.source.{name}, {number}"


def rows_of_devices(
    hardware: HardwareConfig, training: TrainingConfig, objective: ObjectiveConfig
) -> Iterator[Mistake]:
    """Each device has a row to compute, where their number follows from the config: rollouts have what they need."""
    ranks, rows = (hardware.num_devices or 1) // hardware.mesh.tensor, training.global_batch_size
    if training.trains and objective.data == "traces" and rows < ranks:
        what = f"{rows} rows are fewer than the {ranks} devices that share them out"
        yield "training.global_batch_size", f"{what}; raise it, or hardware.mesh.tensor, or use fewer devices"


def backend_capabilities(backend: BackendConfig, model: ModelConfig, generation: GenerationConfig) -> Iterator[Mistake]:
    """Refuses what a backend lacks; the family of pretrained weights is checked once they are read."""
    facts, who = BACKENDS[backend.name], f"backend {backend.name!r}"
    instead = f"or one of backend={', backend='.join(name for name in BACKENDS if name != backend.name)}"
    if model.adapter is not None and not facts.adapters:
        yield "model.adapter", f"{who} does not support LoRA: model/adapter=none, {instead}"
    family = model.source.config.get("model_type") if isinstance(model.source, ScratchModel) else None
    if family is not None and facts.families is not None and family not in facts.families:
        what = f"{who} does not compute {family!r}: one of {', '.join(facts.families)}, {instead}"
        yield "model.source.config.model_type", what
    if generation.temperature > 0 and generation.batch_size > 1 and not facts.seed_per_prompt:
        what = f"{who} has one seed for a whole batch, so it samples one prompt at a time: "
        yield "generation.batch_size", f"{what}generation.batch_size=1, generation.temperature=0, {instead}"


def optimizers(backend: BackendConfig, optimizer: OptimizerConfig, hardware: HardwareConfig) -> Iterator[Mistake]:
    """Refuses an optimizer that a backend lacks, or that it cannot give the whole tensors it needs."""
    facts, who = BACKENDS[backend.name], f"backend {backend.name!r}"
    if facts.optimizers is not None and optimizer.kind not in facts.optimizers:
        what = f"{who} trains with optimizer={', '.join(facts.optimizers)} alone: take it, or backend=jax, or torch"
        yield "optimizer.kind", what
    if hardware.mesh.tensor > 1 and not (optimizer.elementwise or facts.gathers_for_optimizer):
        yield "hardware.mesh.tensor", f"optimizer {optimizer.kind!r}, {who}: 1; {NEEDS_WHOLE_TENSORS}"


def tokenizer_of_model(model: ModelConfig, tokenizer: TokenizerConfig) -> Iterator[Mistake]:
    """Pretrained weights bring their tokenizer, fresh ones need a new one; an adapter never trains the embeddings."""
    fresh, pretrained = isinstance(model.source, FreshModel | ScratchModel), tokenizer.kind == "pretrained"
    if fresh and pretrained:
        yield "tokenizer.kind", "a fresh model has no tokenizer of its own: tokenizer=char or tokenizer=bpe"
    if not fresh and not pretrained:
        yield "tokenizer.kind", "pretrained weights go with their own tokenizer: tokenizer=pretrained"
    family = model.source.config.get("model_type") if isinstance(model.source, ScratchModel) else None
    if tokenizer.kind == "char" and family in SPLIT_BY_TYPE:
        what = f"transformers reads every tokenizer of a {family} as its byte-level BPE, so characters would be lost"
        yield "tokenizer.kind", f"{what}: tokenizer=bpe, or another model_type"
    if pretrained and model.adapter is not None and tokenizer.added_tokens:
        what = "with model.adapter the embeddings stay as they are, so new tokens would never be learned: "
        yield "tokenizer.added_tokens", f"{what}add none, or train every weight (model/adapter=none)"
    if fresh and model.stop_tokens:
        yield "model.stop_tokens", "a fresh model stops at its own end token: leave it empty"


def chat_template(model: ModelConfig, format: FormatConfig) -> Iterator[Mistake]:
    """A new tokenizer has none."""
    source = model.source
    drawn = source.drawn if isinstance(source, RunModel) else isinstance(source, FreshModel | ScratchModel)
    if drawn and format.kind in CHATS:
        yield "format.kind", f"a fresh model's tokenizer has no chat template: format={CHATS[format.kind]}"


def tokens_added(tokenizer: TokenizerConfig) -> Iterator[Mistake]:
    """Added tokens are distinct, and none of them is one that a trained tokenizer already has."""
    known = () if tokenizer.kind == "pretrained" else ("<pad>", "<end>")
    for text in dict.fromkeys(tokenizer.added_tokens):
        if (*known, *tokenizer.added_tokens).count(text) > 1:
            yield "tokenizer.added_tokens", f"{text!r} is there already; name each new token once"


def learnable(dataset: DatasetConfig, training: TrainingConfig) -> Iterator[Mistake]:
    """Some traces must remain to train on, and something in them to learn; problems in words have their limits."""
    weights, source, held_out = dataset.loss_weights, dataset.source, dataset.split.validation + dataset.split.test
    if not any((weights.prompt, weights.previous_turns, weights.steps, weights.answer, weights.end)):
        yield "dataset.loss_weights", "all are 0: nothing would be learned"
    if held_out > 1 or (training.trains and held_out == 1):
        yield "dataset.split", "validation + test must be below 1: something must be left to train on"
    if isinstance(source, ArithmeticSource) and source.wording == "words":
        if source.num_traces is None:
            yield "dataset.source.num_traces", "wording=words needs a number"
        if source.operation == "multiply" and 1 not in source.digits:
            yield "dataset.source.digits", "multiplication in words needs one operand of one digit"


def sources_needed(dataset: DatasetConfig, training: TrainingConfig, generation: GenerationConfig) -> Iterator[Mistake]:
    """Training needs traces, and prompts that are asked have to come from somewhere."""
    source = dataset.source
    parts = [part.source for part in source.sources.values()] if isinstance(source, MixtureSource) else [source]
    if any(isinstance(part, GeneratedSource) or part.train is not None for part in parts):
        return
    if training.trains:
        what = "nothing to train on: name it, or ask the model as it is (training=none)"
        yield ("dataset.source.train", what)
    elif all(getattr(part, generation.split) is None for part in parts):
        where = f"dataset.source.{generation.split}"
        yield where, f"nothing to ask: {where}.path=FILE, or another generation.split"


def problems(dataset: DatasetConfig) -> Iterator[Mistake]:
    """Problems can be written as declared, and a balance has something to choose from."""
    source, limit = dataset.source, dataset.limit
    if isinstance(source, ArithmeticSource):
        if source.wording not in ("symbols", "words") and source.operation != "add":
            yield "dataset.source.wording", f"{source.wording} writes additions only: dataset.source.operation=add"
        if source.fewest_digits is not None and source.fewest_digits > min(source.digits):
            what = f"{source.fewest_digits} is more than the digits of an operand, {min(source.digits)}"
            yield "dataset.source.fewest_digits", what
    if limit.balance is not None and limit.train is None:
        yield "dataset.limit.balance", "chooses among the traces of `train`, which has no limit: dataset.limit.train=N"


def previous_turns(dataset: DatasetConfig, format: FormatConfig) -> Iterator[Mistake]:
    """Only a conversation has previous turns to learn from."""
    if dataset.loss_weights.previous_turns > 0 and format.kind not in CHATS:
        what = f"format.kind {format.kind!r} writes no previous turns: 0, or format={' or format='.join(CHATS)}"
        yield "dataset.loss_weights.previous_turns", what


def lengths(model: ModelConfig, dataset: DatasetConfig, training: TrainingConfig) -> Iterator[Mistake]:
    """A trace must fit into a row, and a row's trace into the model."""
    longest, row, source = dataset.max_length, training.row_length, model.source
    if longest is None:
        return
    if training.trains and row is not None and row < longest:
        yield "training.row_length", f"{row} is shorter than dataset.max_length {longest}"
    drawn = source.drawn.get("max_position_embeddings") if isinstance(source, RunModel) else None
    positions = source.max_position_embeddings if isinstance(source, FreshModel) else drawn
    if positions is not None and longest > positions:
        yield "dataset.max_length", f"{longest} exceeds model.source.max_position_embeddings {positions}"


def phases(schedule: ScheduleConfig, training: TrainingConfig) -> Iterator[Mistake]:
    """Warm-up and decay must fit into training; with `num_epochs`, this is known only from the prepared data."""
    if training.max_steps and (mistake := schedule_mistake(schedule, training.max_steps)):
        yield mistake


def by_reward(objective: ObjectiveConfig, training: TrainingConfig) -> Iterator[Mistake]:
    """Only answers that are learned from have a reward."""
    if training.trains and "reward" in training.deciding and objective.data != "rollouts":
        what = f"objective {objective.kind!r} has no reward that could decide: select or stop by accuracy, or by loss"
        yield "training", what


def enough_samples(generation: GenerationConfig, evaluation: EvaluationConfig) -> Iterator[Mistake]:
    """pass@k is estimated from at least k samples."""
    samples = generation.num_return_sequences
    for k in (k for k in evaluation.pass_at if k > samples):
        yield "evaluation.pass_at", f"pass@{k} needs generation.num_return_sequences >= {k}, which is {samples}"


def way_into_the_answer(format: FormatConfig, generation: GenerationConfig) -> Iterator[Mistake]:
    """Where nothing but the model tells an answer from a step, a completion that was cut cannot be asked for one."""
    asking = {"truncated", "filler"}.intersection(
        () if generation.interventions is None else generation.interventions.kinds
    )
    if asking and not asks_for_answer(format):
        why = "the format has no text in front of an answer, so after a cut the model would write another step: "
        remedy = "generation/interventions=mistakes, or text there (format.answer_start, format.answer)"
        yield "generation.interventions.kinds", f"{' and '.join(sorted(asking))}: {why}{remedy}"


RULES: tuple[Callable[..., Iterator[Mistake]], ...] = (
    names,
    platform_of_backend,
    devices,
    rows_of_devices,
    backend_capabilities,
    optimizers,
    tokenizer_of_model,
    chat_template,
    tokens_added,
    learnable,
    sources_needed,
    problems,
    previous_turns,
    lengths,
    phases,
    by_reward,
    enough_samples,
    way_into_the_answer,
    *OBJECTIVE_RULES,
)
"""Each takes the sections its parameters name, so `load` can apply those whose sections are sound."""
