"""The updates of a training before there is one: how many, in what shapes, and what is computed for each.

Of rollouts only the shapes are known: every answer is taken to be as long as it may become.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunix_rt.backends.memory import GenerationLoad
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import EncodedDataset, Int32
from tunix_rt.batches.pairs import EncodedPairs
from tunix_rt.batches.reader import Reader
from tunix_rt.batches.schedule import batch_schedule, pair_schedule
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.objectives.rollouts import RolloutObjective
from tunix_rt.rollouts.layout import RowShape, lay_out, row_length
from tunix_rt.rollouts.start import rollout_order, rollout_schedule
from tunix_rt.traces.prepared import PreparedData

NUM_BATCHES = 16
"""Number of steps examined: enough for nearly every kind of batch to occur."""


@dataclass(frozen=True, slots=True)
class Updates:
    """What follows from the objective and the data."""

    batches: tuple[Batch, ...] = ()
    """Of the first steps."""
    num_steps: int = 0
    num_epochs: float = 0.0
    row_length: int = 0
    steps_per_epoch: float = 0.0
    """Steps in which each trace, pair or prompt occurs once."""
    num_tokens: int = 0
    """Tokens of all of them, once; of prompts without their answers."""
    num_passes: int = 0
    """Forward passes besides the one of the update itself."""
    keeps_reference: bool = False
    """A second model stays in memory while the first one is trained."""
    sampled: GenerationLoad | None = None
    """What is decoded together in a rollout."""
    rollouts_per_step: float = 0.0
    """How often that is, for each update."""


def updates_of(config: ExperimentConfig, prepared: PreparedData) -> Updates:
    """The updates that `config` declares. Raises DataError, ConfigError, ModelError."""
    if not config.training.trains:
        return Updates()
    if isinstance(config.objective, RolloutObjective):
        return _of_rollouts(config, config.objective, prepared)
    if config.objective.data == "pairs":
        pairs, facts = pair_schedule(config.training, prepared)
        steps = range(min(facts["num_steps"], NUM_BATCHES))
        batches = tuple(pairs.batch_at(step).batch for step in steps)
        tokens = int((EncodedPairs.open(prepared.encoded("train")).lengths + 1).sum())
        shape = (facts["num_steps"], facts["num_epochs"], facts["row_length"], pairs.steps_per_epoch, tokens)
        return Updates(batches, *shape, num_passes=1)
    order, facts = batch_schedule(config.training, prepared)
    batches = tuple(order.batch_at(step) for step in range(min(facts["num_steps"], NUM_BATCHES)))
    tokens = int((EncodedDataset.open(prepared.encoded("train")).lengths + 1).sum())
    return Updates(batches, facts["num_steps"], facts["num_epochs"], facts["row_length"], order.steps_per_epoch, tokens)


def _of_rollouts(config: ExperimentConfig, objective: RolloutObjective, prepared: PreparedData) -> Updates:
    """One batch, in which the longest prompts are answered at greatest length."""
    training, rollout = config.training, objective.rollout
    reader = Reader.of(prepared.model_folder, config.format)
    prompts = sorted((reader.question(trace).ids for trace in prepared.traces("train")), key=len, reverse=True)
    order = rollout_order(objective, training, len(prompts))
    facts = rollout_schedule(order, rollout.updates, training)
    needed = row_length(len(prompts[0]), rollout.max_new_tokens, reader.max_positions)
    length = max(needed, training.row_length or 0)
    answered = _answered(
        prompts[: rollout.prompts_per_step], rollout.samples_per_prompt, rollout.max_new_tokens, length
    )
    batch = lay_out(*answered, RowShape(length, training.packing)).mask()
    together = min(len(answered[0]), rollout.batch_size)
    return Updates(
        batches=(batch,),
        num_steps=facts["num_steps"],
        num_epochs=facts["num_epochs"],
        row_length=length,
        steps_per_epoch=order.rollouts_per_epoch * rollout.updates,
        num_tokens=sum(map(len, prompts)),
        num_passes=1 + objective.needs_reference,
        keeps_reference=objective.needs_reference and config.model.adapter is None,
        sampled=GenerationLoad(together, len(prompts[0]), rollout.max_new_tokens),
        rollouts_per_step=-(-len(answered[0]) // together) / rollout.updates,
    )


def _answered(
    prompts: Sequence[Int32], samples: int, max_new_tokens: int, length: int
) -> tuple[list[Int32], list[Int32]]:
    """Each prompt `samples` times, and an answer to each: as many tokens as it may have, and as fit into a row."""
    asked = [prompt for prompt in prompts for _ in range(samples)]
    return asked, [np.zeros(min(max_new_tokens, length + 1 - len(prompt)), np.int32) for prompt in asked]
