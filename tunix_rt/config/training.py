"""The sections `schedule` and `training`: one definition that all backends follow."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Discriminator

from tunix_rt.config.section import Added, Count, Natural, Steps, Unit, section

Positive = Annotated[float, Gt(0)]
Warmup = Natural | Annotated[float, Gt(0), Lt(1)]
"""Steps; below 1 a share of all steps, rounded up (like `warmup_steps` of transformers 5)."""


@section
class CosineSchedule:
    """Linear warm-up, then half a cosine down to `final_fraction` of the peak at the last step."""

    kind: Literal["cosine"]
    warmup_steps: Warmup
    """Steps in which the learning rate rises to its peak; below 1 a share of all steps, rounded up."""
    final_fraction: Annotated[float, Ge(0), Le(1)]
    """Learning rate at the last step, as a share of the peak."""


@section
class LinearSchedule:
    """Linear warm-up, then a straight line down to `final_fraction` of the peak at the last step."""

    kind: Literal["linear"]
    warmup_steps: Warmup
    final_fraction: Annotated[float, Ge(0), Le(1)]


@section
class ConstantSchedule:
    """Linear warm-up, then the peak."""

    kind: Literal["constant"]
    warmup_steps: Warmup


@section
class WsdSchedule:
    """Warm-up, stable, decay (arXiv 2404.06395): linear decay over the last `decay_fraction` of the steps."""

    kind: Literal["wsd"]
    warmup_steps: Warmup
    decay_fraction: Annotated[float, Gt(0), Le(1)]
    """Share of all steps in which the learning rate falls at the end."""
    final_fraction: Annotated[float, Ge(0), Le(1)]


ScheduleConfig = Annotated[
    CosineSchedule | LinearSchedule | ConstantSchedule | WsdSchedule,
    Discriminator("kind"),
]


def warmup_of(schedule: ScheduleConfig, num_steps: int) -> int:
    """Warm-up steps in a training of `num_steps`; a share leaves at least the last step."""
    if isinstance(schedule.warmup_steps, int):
        return schedule.warmup_steps
    return min(math.ceil(schedule.warmup_steps * num_steps), num_steps - 1)


def decay_of(schedule: WsdSchedule, num_steps: int) -> int:
    """Decay steps at the end of a training of `num_steps`."""
    return max(round(num_steps * schedule.decay_fraction), 1)


def schedule_mistake(schedule: ScheduleConfig, num_steps: int) -> tuple[str, str] | None:
    """Dotted path and what is wrong if the schedule's parts do not fit into `num_steps`."""
    warmup, where = warmup_of(schedule, num_steps), "schedule.warmup_steps"
    if warmup >= num_steps:
        return where, f"{warmup} must be below the number of steps {num_steps}; a share of them fits any, such as 0.1"
    if isinstance(schedule, WsdSchedule) and warmup + decay_of(schedule, num_steps) > num_steps:
        return where, (
            f"the warm-up of {warmup} steps and the decay of the last {decay_of(schedule, num_steps)} "
            f"(schedule.decay_fraction) must not overlap, but there are {num_steps}"
        )
    return None


@section
class EarlyStopping:
    """Stop when the metric has not improved by more than `min_delta` in `patience` evaluations."""

    metric: Literal["loss", "accuracy", "reward"]
    """What has to improve, on the validation split; `reward`, of greedy answers, with rollouts only."""
    patience: Annotated[Count, Unit("evaluations")]
    """Evaluations without an improvement until training stops."""
    min_delta: Annotated[float, Ge(0)]
    """The least change that counts as an improvement."""


@section
class StopAt:
    """Stop at the first evaluation that reaches a value. Once a task is solved, nearly all answers get one reward, and
    updates follow the noise of the few others.
    """

    metric: Literal["accuracy", "reward"]
    """Of greedy answers to `evaluate_samples` validation prompts; `reward` with rollouts only."""
    value: float
    """The least value at which training ends."""


@section
class TrainingConfig:
    """How long to train, with what batches, and when to stop. Evaluation during training is part of it: it decides
    when early stopping stops and which step is best.
    """

    seed: Natural = 0
    """Seed for fresh weights and adapters, data order and dropout. null: the experiment's `seed`."""
    max_steps: Annotated[Natural, Unit("steps")] | None
    """Optimizer steps; exactly one of `max_steps` and `num_epochs` is given. 0 (`training=none`): nothing is trained,
    and the model is asked as it is."""
    num_epochs: Annotated[Positive, Unit("epochs")] | None
    """Passes over all traces, instead of `max_steps`; a fraction is possible."""
    max_seconds: Annotated[Positive, Unit("seconds")] | None
    """Wall-clock budget of the training loop, in seconds; the step it stopped at is recorded."""
    global_batch_size: Annotated[Count, Unit("rows")]
    """Rows of one update, over all devices (of pairs: pairs); the loss is summed over all and divided once. How many a
    device computes at once is `hardware.local_batch_size`. Rollouts have as many rows as they need."""
    row_length: Annotated[int, Ge(2), Unit("tokens")] | None
    """Tokens per row; null: chosen from the lengths of the traces, and recorded. Rollouts have at least what a
    prompt and its longest answer need."""
    packing: bool
    """Several traces per row, isolated from each other; false: one trace per row."""
    clip_norm: Positive | None
    """Global gradient norm above which gradients are scaled down."""
    evaluate_every: Steps | None
    """Steps between evaluations on the validation split; null: none."""
    evaluate_samples: Annotated[Natural, Unit("prompts")]
    """Validation prompts answered at each evaluation (for accuracy and a few printed samples)."""
    early_stopping: EarlyStopping | None
    select: Literal["last", "best_loss", "best_accuracy", "best_reward"]
    """Which step becomes the model. `best_reward`: by greedy answers to validation prompts, with rollouts only."""
    stop_at: Added[StopAt | None] = None
    """End training as soon as it is good enough; null: not."""

    def __post_init__(self) -> None:
        if not self.trains:
            return
        if (self.max_steps is None) == (self.num_epochs is None):
            raise ValueError("give exactly one of max_steps and num_epochs (the other null)")
        rules = self.early_stopping, self.stop_at
        if (self.select != "last" or rules != (None, None)) and self.evaluate_every is None:
            raise ValueError("early_stopping, stop_at and select=best_… need evaluate_every")
        if self.deciding & {"accuracy", "reward"} and self.evaluate_samples == 0:
            raise ValueError(f"selecting or stopping by {min(self.deciding - {'loss'})} needs evaluate_samples > 0")

    @property
    def trains(self) -> bool:
        """Whether anything is trained; otherwise the rest of the section changes no result."""
        return self.max_steps != 0

    @property
    def deciding(self) -> set[str]:
        """The metrics that decide which step becomes the model, or when training stops."""
        stops: set[str] = {rule.metric for rule in (self.early_stopping, self.stop_at) if rule is not None}
        return stops if self.select == "last" else stops | {self.select.removeprefix("best_")}

    @property
    def accuracy_decides(self) -> bool:
        """Whether the verdicts on validation answers are among them."""
        return self.trains and "accuracy" in self.deciding
