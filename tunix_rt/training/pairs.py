"""Training on pairs: the trained model's log-probabilities → the objective's value → the weights of an update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunix_rt.backends.interface import Backend, State, TrainingSetup
from tunix_rt.batches.pairs import EncodedPairs, PairBatch, PairOrder
from tunix_rt.batches.schedule import evaluation_length, pair_schedule
from tunix_rt.config.training import TrainingConfig
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.models.content import folder_digest
from tunix_rt.models.sources import adapter_digest
from tunix_rt.objectives.interface import Objective, Tokens
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.training.reference import Layout, Reference, reference_logprobs
from tunix_rt.training.source import Update


@dataclass(frozen=True, slots=True)
class PairSource:
    """Pairs in the order of (seed, step), weighted by what the model says of them at that step."""

    engine: Backend
    objective: Objective
    order: PairOrder
    reference: Reference | None
    """None if the objective needs none."""
    validation: PairEvaluation | None
    """None if nothing is evaluated while training."""
    fetched_ahead: bool = False

    def batch(self, step: int, state: State) -> Update:
        pairs = self.order.batch_at(step - 1)
        value = self.objective.value(tokens_of(self.engine, state, [pairs], self.reference))
        return Update(pairs.weighted(value.weights), {"train/loss": value.loss, **value.metrics})

    def ids(self, step: int) -> list[str]:
        return self.order.ids_at(step - 1)


def tokens_of(
    engine: Backend,
    state: State,
    batches: Iterable[PairBatch],
    reference: Reference | None,
    check: Callable[[], None] = lambda: None,
) -> Tokens:
    """The trained tokens of some batches together, with their log-probabilities; `check` is called before each."""
    logprobs, before, sequence, count = [], [], [], 0
    for pairs in batches:
        check()
        logprobs.append(pairs.taken(engine.fetch(engine.logprobs(state, pairs.batch))["logprobs"]))
        before += [] if reference is None else [reference.of(pairs)]
        sequence.append(pairs.sequence + count)
        count += len(pairs.indices)
    of_reference = None if reference is None else np.concatenate(before)
    return Tokens(np.concatenate(logprobs), np.concatenate(sequence), count, reference=of_reference)


@dataclass(frozen=True, slots=True)
class PairEvaluation:
    """The objective's value on all pairs of a split at once, and what it measures of them."""

    engine: Backend
    objective: Objective
    pairs: EncodedPairs
    layout: Layout
    reference: Reference | None

    def __call__(self, state: State, check: Callable[[], None]) -> Mapping[str, float]:
        """`eval/loss`, and `eval/preference_accuracy` and the like. `check` may raise Interrupted."""
        batches = self.layout.batches(self.pairs)
        value = self.objective.value(tokens_of(self.engine, state, batches, self.reference, check))
        measured = {f"eval/{name.replace('/', '_')}": number for name, number in value.metrics.items()}
        return {"eval/loss": value.loss, **measured}


def pair_source(
    objective: Objective,
    training: TrainingConfig,
    prepared: PreparedData,
    engine: Backend,
    setup: TrainingSetup,
    ready: Callable[[int], None] = lambda length: None,
) -> tuple[PairSource, JsonObject]:
    """The source of a training on prepared pairs, and what follows from the data (`pair_schedule`).

    The reference is the model that training begins with, with its adapter if it has one already. `ready`: called with
    the row length before anything is computed. Raises DataError, ConfigError, and what loading it raises.
    """
    order, facts = pair_schedule(training, prepared)
    length, together = int(facts["row_length"]), training.global_batch_size
    ready(length)
    splits = {"train": (order.dataset, Layout(length, training.packing, together))}
    if training.evaluate_every is not None:
        pairs = EncodedPairs.open(prepared.encoded("validation"))
        if len(pairs) == 0:
            raise DataError(
                f"{prepared.folder}: the validation split has no pairs; raise dataset.split.validation, "
                "or set training.evaluate_every=null"
            )
        splits["validation"] = (pairs, Layout(evaluation_length(pairs, length), training.packing, together))
    found: Mapping[str, Reference] = {}
    if objective.needs_reference:
        start = prepared.model_folder
        made_of = start_of(setup, start) | {"data": prepared.encoded_digest}
        place = prepared.folder.with_name(f"{prepared.folder.name}.reference")
        found = reference_logprobs(place, made_of, splits, engine, lambda: engine.load(start, setup))
    validation = None
    if "validation" in splits:
        validation = PairEvaluation(engine, objective, *splits["validation"], found.get("validation"))
    return PairSource(engine, objective, order, found.get("train"), validation), facts


def start_of(setup: TrainingSetup, folder: Path) -> JsonObject:
    """Digests of the model that training begins with: of a new adapter, which adds nothing yet, its base."""
    if setup.adapter is None:
        return {"model": folder_digest(folder), "adapter": None}
    config = setup.adapter.config
    path = None if config.path is None else adapter_digest(Path(config.path).expanduser())
    return {"model": setup.adapter.base.sha256, "adapter": {"quantize": config.quantize, "path": path}}
