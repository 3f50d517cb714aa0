"""The sections `optimizer`, `schedule` and `training`: one definition that both backends follow."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Discriminator

from tunix_rt.config.section import section

Count = Annotated[int, Gt(0)]
Positive = Annotated[float, Gt(0)]
Beta = Annotated[float, Ge(0), Lt(1)]


@section
class OptimizerConfig:
    """AdamW in the decoupled form (Loshchilov & Hutter 2017, arXiv 1711.05101), float32 state."""

    kind: Literal["adamw"]
    learning_rate: Positive
    """Peak learning rate."""
    beta1: Beta
    beta2: Beta
    eps: Positive
    """Added to the square root of the bias-corrected second moment."""
    weight_decay: Annotated[float, Ge(0)]
    no_decay: tuple[Literal["norms", "biases", "embeddings"], ...]
    """Kinds of tensors that are not decayed; a tied output head is an embedding."""


@section
class CosineSchedule:
    """Linear warm-up, then half a cosine down to `final_fraction` of the peak at the last step."""

    kind: Literal["cosine"]
    warmup_steps: Annotated[int, Ge(0)]
    final_fraction: Annotated[float, Ge(0), Le(1)]


@section
class LinearSchedule:
    """Linear warm-up, then a straight line down to `final_fraction` of the peak at the last step."""

    kind: Literal["linear"]
    warmup_steps: Annotated[int, Ge(0)]
    final_fraction: Annotated[float, Ge(0), Le(1)]


@section
class ConstantSchedule:
    """Linear warm-up, then the peak."""

    kind: Literal["constant"]
    warmup_steps: Annotated[int, Ge(0)]


@section
class WsdSchedule:
    """Warm-up, stable, decay (arXiv 2404.06395): the last `decay_fraction` of the steps go down in a line."""

    kind: Literal["wsd"]
    warmup_steps: Annotated[int, Ge(0)]
    decay_fraction: Annotated[float, Gt(0), Le(1)]
    final_fraction: Annotated[float, Ge(0), Le(1)]


ScheduleConfig = Annotated[
    CosineSchedule | LinearSchedule | ConstantSchedule | WsdSchedule,
    Discriminator("kind"),
]


@section
class EarlyStopping:
    """Stop when the metric has not improved by more than `min_delta` in `patience` evaluations."""

    metric: Literal["loss", "accuracy"]
    patience: Count
    min_delta: Annotated[float, Ge(0)]


@section
class TrainingConfig:
    """How long, in what portions, and when to stop. Evaluation during training is part of it: it decides
    where early stopping stops and which step is best."""

    max_steps: Count | None
    """Optimizer steps; exactly one of `max_steps` and `num_epochs` is given."""
    num_epochs: Positive | None
    max_seconds: Positive | None
    """Wall-clock budget of the training loop, in seconds; the step it stopped at is recorded."""
    per_device_batch_size: Count
    """Rows in a micro-batch on one device."""
    gradient_accumulation_steps: Count
    """Micro-batches in a step; the loss is summed over all and divided once."""
    row_length: Annotated[int, Ge(2)] | None
    """Tokens in a row; null: chosen from the lengths of the traces (`batches/pack.py`), and recorded."""
    packing: bool
    """Several traces in a row, isolated from each other; false: one trace a row."""
    clip_norm: Positive | None
    """Global gradient norm above which gradients are scaled down."""
    evaluate_every: Count | None
    """Steps between evaluations on the validation split; null: none."""
    evaluate_samples: Annotated[int, Ge(0)]
    """Validation prompts answered at each evaluation (for accuracy and a few printed samples)."""
    early_stopping: EarlyStopping | None
    select: Literal["last", "best_loss", "best_accuracy"]
    """Which step becomes the model."""

    def __post_init__(self) -> None:
        if (self.max_steps is None) == (self.num_epochs is None):
            raise ValueError("give exactly one of max_steps and num_epochs (the other null)")
        needs = self.select != "last" or self.early_stopping is not None
        if needs and self.evaluate_every is None:
            raise ValueError("early_stopping and select=best_… need evaluate_every")
        accuracy = self.select == "best_accuracy" or (
            self.early_stopping is not None and self.early_stopping.metric == "accuracy"
        )
        if accuracy and self.evaluate_samples == 0:
            raise ValueError("selecting or stopping by accuracy needs evaluate_samples > 0")
