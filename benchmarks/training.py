"""Our training loop against the plain `transformers.Trainer` with dynamic padding: real tokens per CPU-second.

All train once on the same traces, from the same weights, with the same AdamW, clipping and precision, in the
same number of updates. Ours packs the data into rows and takes the first updates of an epoch. Theirs gets the
same traces, as many per update as ours has on average, in random order, padded to the longest in the batch
(`DataCollatorForSeq2Seq`). The measurement spans the loop from its first batch to the end of its last update,
without loading, saving, evaluation and compilation.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import race
from benchmarks.race import THEIRS, THREADS, Clock, Lap, Ready
from benchmarks.workload import Workload, parser
from tunix_rt.batches.encoded import EncodedDataset
from tunix_rt.batches.schedule import batch_schedule
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.config.training import TrainingConfig
from tunix_rt.terminal import out
from tunix_rt.traces.prepared import PreparedData


@dataclass(frozen=True, slots=True)
class TrainingCase:
    """The work of one lap, the same for all contestants."""

    workload: Workload
    rows: int
    """Rows per update of ours."""
    row_length: int
    num_updates: int
    chosen: tuple[int, ...]
    """Indices of the traces in those updates."""

    @classmethod
    def of(cls, workload: Workload, num_traces: int, num_updates: int) -> TrainingCase:
        """The first updates of an epoch, with about `num_traces` traces each. Prepares the data."""
        config, prepared = workload.config, workload.prepared()
        order, facts = batch_schedule(config.training, prepared)
        dataset = EncodedDataset.open(prepared.encoded("train"))
        rows = max(1, round(num_traces * order.num_rows / len(dataset)))
        if num_updates * rows > order.num_rows:
            raise SystemExit(
                f"--steps {num_updates} of {rows} rows are more than the {order.num_rows} rows of the data"
            )
        made = cls(workload, rows, int(facts["row_length"]), num_updates, ())
        order, _ = batch_schedule(made.training, prepared)
        index = {name: place for place, name in enumerate(dataset.ids)}
        return replace(made, chosen=tuple(index[name] for step in range(num_updates) for name in order.ids_at(step)))

    @property
    def training(self) -> TrainingConfig:
        """The training config of a lap; the evaluation at the end stops the clock."""
        return replace(
            self.workload.config.training,
            max_steps=self.num_updates,
            num_epochs=None,
            global_batch_size=self.rows,
            row_length=self.row_length,
            evaluate_every=self.num_updates,
        )

    @property
    def num_traces(self) -> int:
        """Traces per update of theirs, for the same number of updates."""
        return math.ceil(len(self.chosen) / self.num_updates)


def ours(plan: TrainingCase, backend: str) -> Ready:
    """Laps of `training/loop.py`, the loop of every experiment, on a backend."""
    from tunix_rt.backends import registry
    from tunix_rt.backends.interface import TrainingSetup
    from tunix_rt.machine import cache_folder

    config, prepared, training = plan.workload.on(backend).config, plan.workload.prepared(), plan.training
    engine = registry.create(config.backend, config.hardware, cache_folder())
    setup = TrainingSetup(config.optimizer, training.clip_norm, config.training.seed)

    def lap() -> Lap:
        state = engine.load(prepared.model_folder, setup)
        with tempfile.TemporaryDirectory() as folder:
            return _run_loop(config, training, prepared, engine, state, Path(folder))

    return lap


def _run_loop(
    config: ExperimentConfig, training: TrainingConfig, prepared: PreparedData, engine: Any, state: Any, folder: Path
) -> Lap:
    from tunix_rt.runs.interrupt import Interrupt
    from tunix_rt.runs.log import MetricsLog
    from tunix_rt.training.checkpoint import Checkpoints, Progress
    from tunix_rt.training.loop import TrainPlan, train
    from tunix_rt.training.source import SupervisedSource

    order, _ = batch_schedule(training, prepared)
    log = MetricsLog(folder / "metrics.jsonl", folder / "timings.jsonl", exact=True)
    laps: list[Lap] = []

    def stop_the_clock(_state: Any, _step: int) -> Mapping[str, float]:
        """Called after the last update's metrics have been fetched and before the state is saved."""
        tokens = int(log.series("train/tokens")[-1][1])
        losses = [loss for _, loss in log.series("train/loss")]
        laps.append(clock.lap(tokens, updates=len(losses), loss=float(np.mean(losses))))
        return {"eval/none": 0.0}

    work = TrainPlan(
        num_steps=training.max_steps or 0,
        source=SupervisedSource(order),
        rate_at=lambda _step: config.optimizer.learning_rate,
        evaluate=stop_the_clock,
    )
    checkpoints = Checkpoints(folder / "checkpoints", {}, keep=1)
    cadence = replace(config.checkpoint, save_every=None)
    clock = Clock()
    train(engine, state, Progress(), work, training, cadence, log, checkpoints, Interrupt(folder / "stop"))
    (lap,) = laps
    return lap


def theirs(plan: TrainingCase) -> Ready:
    """Laps of `transformers.Trainer`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, TrainingArguments

    torch.set_num_threads(THREADS)
    folder = plan.workload.prepared().model_folder
    dataset = EncodedDataset.open(plan.workload.prepared().encoded("train"))
    examples = [_example(*dataset.sequence(index)) for index in plan.chosen]
    collate = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(folder), padding="longest")
    config = plan.workload.config
    assert config.optimizer.no_decay == ("norms", "biases"), "what Trainer does not decay"

    def lap() -> Lap:
        with tempfile.TemporaryDirectory() as output:
            arguments = TrainingArguments(
                output_dir=output,
                per_device_train_batch_size=plan.num_traces,
                num_train_epochs=1,
                learning_rate=config.optimizer.learning_rate,
                lr_scheduler_type="constant",
                adam_beta1=config.optimizer.beta1,
                adam_beta2=config.optimizer.beta2,
                adam_epsilon=config.optimizer.eps,
                weight_decay=config.optimizer.weight_decay,
                max_grad_norm=plan.training.clip_norm or 0.0,
                logging_steps=config.checkpoint.log_every,
                save_strategy="no",
                eval_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                dataloader_pin_memory=False,
                seed=config.training.seed,
            )
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            return _run_trainer(model, arguments, examples, collate)

    return lap


def _example(ids: Any, weights: Any) -> dict[str, list[int]]:
    """A row for `Trainer`: `labels` has each target token, else -100; the model shifts them."""
    return {"input_ids": ids.tolist(), "labels": np.where(weights > 0, ids, -100).tolist()}


def _run_trainer(model: Any, arguments: Any, examples: list[dict[str, list[int]]], collate: Any) -> Lap:
    from transformers import PrinterCallback, Trainer, TrainerCallback

    tokens, clocks, laps = [0], [], []

    def counted(portion: list[dict[str, list[int]]]) -> Any:
        """A trace of N tokens has N - 1 predictions, which is how ours counts."""
        batch = collate(portion)
        tokens[0] += int(batch["attention_mask"].sum()) - len(portion)
        return batch

    class Stopwatch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clocks.append(Clock())

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == state.max_steps:
                laps.append(clocks[0].lap(tokens[0], updates=state.global_step))

    trainer = Trainer(model, arguments, counted, examples, callbacks=[Stopwatch()])
    trainer.remove_callback(PrinterCallback)
    loss = trainer.train().training_loss
    (lap,) = laps
    return replace(lap, facts=lap.facts | {"loss": float(loss)})


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.training`."""
    made = parser(__doc__ or "", rounds=3)
    made.add_argument("--steps", type=int, default=4, help="updates in a lap (default %(default)s)")
    made.add_argument("--traces", type=int, default=16, help="traces an update, about (default %(default)s)")
    given = made.parse_args(arguments)
    plan = TrainingCase.of(Workload.of(*given.overrides), given.traces, given.steps)
    contestants = {name: partial(ours, plan, name) for name in given.backends}
    results = race.run({**contestants, THEIRS: partial(theirs, plan)}, given.rounds)
    race.show("training: ours against transformers.Trainer with dynamic padding", results)
    out(
        f"{plan.num_updates} updates of {plan.rows} rows of {plan.row_length} positions (ours), of {plan.num_traces} "
        f"padded traces (theirs); {THREADS} threads; warm-up: the first lap beyond a measured one (compilation)"
    )
    if given.json:
        facts = {"rows": plan.rows, "row_length": plan.row_length, "num_traces": plan.num_traces}
        race.write(given.json, "training", {"overrides": plan.workload.overrides, **facts}, results)


if __name__ == "__main__":
    main()
