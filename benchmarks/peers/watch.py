"""What peers built on `transformers.Trainer` share: its settings, and a clock over its updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.race import Clock, Lap
from tunix_rt.config.schema import ExperimentConfig


def settings(config: ExperimentConfig) -> dict[str, Any]:
    """Arguments of `TrainingArguments`: the optimizer of the experiment, and nothing saved or reported."""
    optimizer, precision = config.optimizer, config.backend.precision
    assert optimizer.no_decay == ("norms", "biases"), "what Trainer does not decay"
    return {
        "learning_rate": optimizer.learning_rate,
        "lr_scheduler_type": "constant",
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.eps,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": config.training.clip_norm or 0.0,
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


def timed(trainer: Any, watch: Any) -> Lap:
    """Train with a `stopwatch` among the callbacks, without printing."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return watch.lap(trainer.train().training_loss)


def stopwatch(amount: Callable[[], int]) -> Any:
    """A callback that measures from the first batch to the end of the last update. `amount`: what was done by then."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        _clock: Clock
        _lap: Lap

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self._clock = Clock()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == state.max_steps:
                self._lap = self._clock.lap(amount(), updates=state.global_step)

        def lap(self, loss: float) -> Lap:
            """The lap, with the mean loss as `Trainer` gives it."""
            return self._lap.with_facts(loss=float(loss))

    return Stopwatch()
