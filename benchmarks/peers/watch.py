"""What peers built on `transformers.Trainer` share: its settings, and a clock over its updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.race import Clock, Lap
from benchmarks.training_case import TrainingCase


def settings(plan: TrainingCase) -> dict[str, Any]:
    """Arguments of `TrainingArguments`: one pass over the traces, with the optimizer of the experiment."""
    config = plan.workload.config
    optimizer, precision = config.optimizer, config.backend.precision
    assert optimizer.no_decay == ("norms", "biases"), "what Trainer does not decay"
    return {
        "num_train_epochs": 1,
        "learning_rate": optimizer.learning_rate,
        "lr_scheduler_type": "constant",
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.eps,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": plan.training.clip_norm or 0.0,
        "bf16": precision == "bfloat16",
        "logging_steps": config.checkpoint.log_every,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "seed": config.training.seed,
    }


def stopwatch(tokens: Callable[[], int]) -> Any:
    """A callback that measures from the first batch to the end of the last update. `tokens`: those seen by then."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        _clock: Clock
        _lap: Lap

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self._clock = Clock()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == state.max_steps:
                self._lap = self._clock.lap(tokens(), updates=state.global_step)

        def lap(self, loss: float) -> Lap:
            """The lap, with the mean loss as `Trainer` gives it."""
            return self._lap.with_facts(loss=float(loss))

    return Stopwatch()
