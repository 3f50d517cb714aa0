"""Everything that must hold before the first rollout, and the source that begins there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from tunix_rt.backends.interface import Backend, State
from tunix_rt.batches.reader import Question, Reader
from tunix_rt.config.format import FormatConfig
from tunix_rt.config.model import LoraAdapter
from tunix_rt.config.rollout import RewardConfig
from tunix_rt.config.training import TrainingConfig
from tunix_rt.errors import DataError, ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.objectives.rollouts import RolloutObjective
from tunix_rt.rollouts.asking import Asking
from tunix_rt.rollouts.interface import Judge
from tunix_rt.rollouts.layout import RowShape, row_length
from tunix_rt.rollouts.prompts import AskedPrompts, PromptOrder
from tunix_rt.rollouts.reference import FrozenModel
from tunix_rt.rollouts.source import RolloutSource
from tunix_rt.rollouts.watch import Watch
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.terminal import warn
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.trace import Trace

WITHOUT_REFERENCE = ("format", "length", "steps")
"""Components of a reward that look at the answer alone."""


def rollout_order(objective: RolloutObjective, training: TrainingConfig, num_prompts: int) -> PromptOrder:
    """Which prompts are asked when. Raises DataError: there are too few."""
    return PromptOrder(num_prompts, objective.rollout.prompts_per_step, objective.rollout.resample, training.seed)


def rollout_schedule(order: PromptOrder, updates: int, training: TrainingConfig) -> JsonObject:
    """Steps and epochs; an epoch asks each prompt once, and has `updates` steps for each of its rollouts."""
    steps_per_epoch = order.rollouts_per_epoch * updates
    num_steps = training.max_steps
    if num_steps is None:
        assert training.num_epochs is not None
        num_steps = math.ceil(training.num_epochs * steps_per_epoch - 1e-9)
    return {"num_steps": num_steps, "num_epochs": round(num_steps / steps_per_epoch, 4)}


def asked_prompts(
    objective: RolloutObjective, training: TrainingConfig, names: Sequence[str], folder: Path
) -> tuple[AskedPrompts, JsonObject]:
    """The prompts of each step, and how many steps there are. `names`: of the traces of the training split.

    Raises DataError: there are too few.
    """
    order, updates = rollout_order(objective, training, len(names)), objective.rollout.updates
    return AskedPrompts(order, updates, dict(enumerate(names)), folder), rollout_schedule(order, updates, training)


def rollout_source(
    objective: RolloutObjective,
    training: TrainingConfig,
    prepared: PreparedData,
    format: FormatConfig,
    engine: Backend,
    judge: Judge,
    is_right: Callable[[Prediction, Trace], bool | None],
    reference: FrozenModel | None,
    teacher: State | None,
    folder: Path,
    interrupt: Interrupt,
) -> tuple[RolloutSource, JsonObject]:
    """The source of updates, and what follows from the data: row length, steps, epochs.

    `teacher`: who answers in place of the trained model; `folder`: where the rollouts are kept. Raises DataError (too
    few prompts, one that cannot be asked or judged), ModelError.
    """
    traces, reader = prepared.traces("train"), Reader.of(prepared.model_folder, format)
    prompts, facts = asked_prompts(objective, training, [trace.id for trace in traces], folder)
    steps = range(1, int(facts["num_steps"]) + 1, objective.rollout.updates)
    places = sorted({place for step in steps for place in prompts.places(step)})
    questions = {place: reader.question(traces[place]) for place in places}
    _check(list(questions.values()), objective.reward, is_right)
    longest = max((len(question.ids) for question in questions.values()), default=1)
    _warn_of_little_room(list(questions.values()), objective.rollout.max_new_tokens, reader.max_positions)
    needed = row_length(longest, objective.rollout.max_new_tokens, reader.max_positions)
    length = max(needed, training.row_length or 0)  # what suits traces may be too short for an answer
    source = RolloutSource(
        asking=Asking(engine, reader, objective, judge, training.seed, teacher),
        prompts=prompts,
        questions=questions,
        shape=RowShape(length, training.packing),
        interrupt=interrupt,
        watch=Watch(engine.placement.precision),
        reference=reference,
    )
    return source, {"row_length": length, **facts}


def starting_model(engine: Backend, folder: Path, adapter: LoraAdapter | None) -> FrozenModel:
    """The model that training begins with; with a new adapter, which adds nothing yet, the trained one without it."""
    if adapter is None:
        return FrozenModel(engine, engine.load(folder, None))
    if adapter.path is None:
        return FrozenModel(engine, None)
    return FrozenModel(engine, engine.load(folder, None, Path(adapter.path).expanduser(), adapter.quantize))


def taught_by(engine: Backend, teacher: Path, start: Path, compared: bool) -> tuple[State | None, FrozenModel | None]:
    """A teacher: who answers (None: the trained model does), and with whom its answers are compared (`compared`).

    Raises ModelError if its tokens are not those of the model at `start`.
    """
    own, other = (Tokenizer.load(folder).digest for folder in (start, teacher))
    if own != other:
        raise ModelError(
            f"objective.teacher: {teacher} has another tokenizer than the trained model's (sha256 {other[:12]}…, not "
            f"{own[:12]}…), and probabilities of the same tokens are what is learned: name a teacher with that one"
        )
    state = engine.load(teacher, None)
    return (None, FrozenModel(engine, state)) if compared else (state, None)


def _check(
    questions: Sequence[Question], reward: RewardConfig, is_right: Callable[[Prediction, Trace], bool | None]
) -> None:
    """Every prompt can be asked, and its answers can be judged."""
    for question in questions:
        if question.problem is not None:
            raise DataError(f"prompt {question.trace.id} cannot be asked: {question.problem}")
    needed = [name for name, weight in reward.weights.items() if weight and name not in WITHOUT_REFERENCE]
    without = [q.trace.id for q in questions if needed and is_right(q.failed(""), q.trace) is None]
    if without:
        raise DataError(
            f"{len(without)} of {len(questions)} training prompts have no answer to judge by, which the reward "
            f"`{needed[0]}` needs; the first is {without[0]}: give them one, leave them out, or weigh only "
            f"{', '.join(WITHOUT_REFERENCE)} (objective.reward.weights)"
        )


def _warn_of_little_room(questions: Sequence[Question], max_new_tokens: int, max_positions: int) -> None:
    rooms = {question.trace.id: max_positions - len(question.ids) for question in questions}
    if short := [name for name, room in rooms.items() if room < max_new_tokens]:
        least = min(short, key=rooms.__getitem__)
        warn(
            f"{len(short)} of {len(rooms)} training prompts leave less room than objective.rollout.max_new_tokens="
            f"{max_new_tokens} in the model's {max_positions} positions, {least} only {rooms[least]}: their answers "
            "are cut off earlier; leave them out, or lower it"
        )
