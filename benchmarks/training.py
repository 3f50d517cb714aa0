"""Our training loop against what else one would use, on the same traces: real tokens per CPU-second and per second.

All train once on the same traces, from the same weights, with the same AdamW, clipping and precision, in the same
number of updates: `Trainer` with batches in random order and with traces of one length together (so that nearly nothing
is padded), TRL's `SFTTrainer` on packed rows, and a plain loop of torch over our own rows. The measurement spans the
loop from its first batch to the end of its last update, without loading, saving, evaluation and compilation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import race
from benchmarks.peers.plain_loop import plain_loop
from benchmarks.peers.trainer import trainer
from benchmarks.peers.trl_sft import trl_packed
from benchmarks.race import THREADS, Clock, Lap, Ready
from benchmarks.report import about, write_markdown
from benchmarks.training_case import TrainingCase
from benchmarks.workload import Workload, parse, parser
from tunix_rt.batches.schedule import batch_schedule
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.config.training import TrainingConfig
from tunix_rt.traces.prepared import PreparedData

PEERS: dict[str, Callable[[TrainingCase], Ready]] = {
    "Trainer, random order": partial(trainer, order="random"),
    "Trainer, like lengths": partial(trainer, order="by_length"),
    "TRL SFT, packed": trl_packed,
    "plain loop": plain_loop,
}


def installed_peers() -> list[str]:
    """Those whose packages are there."""
    return [name for name in PEERS if not name.startswith("TRL") or find_spec("trl") is not None]


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


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.training`."""
    made = parser(__doc__ or "", rounds=3)
    made.add_argument("--steps", type=int, default=4, help="updates in a lap (default %(default)s)")
    made.add_argument("--traces", type=int, default=16, help="traces an update, about (default %(default)s)")
    made.add_argument("--peers", default=";".join(installed_peers()), help="by semicolon (default: %(default)s)")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to this file")
    given = parse(made, arguments, {"steps": 2, "traces": 4})
    plan = TrainingCase.of(Workload.of(*given.overrides), given.traces, given.steps)
    contestants = {name: partial(ours, plan, name) for name in given.backends}
    contestants |= {name: partial(PEERS[name], plan) for name in given.peers.split(";")}
    results = race.run(contestants, given.rounds)
    to = race.hardest(results, given.backends)
    table = race.shown(f"training, relative to the fastest peer: {to}", results, to)
    table = replace(
        table,
        note=f"{plan.num_updates} updates of {plan.rows} rows of {plan.row_length} positions (ours), of "
        f"{plan.num_traces} traces (Trainer's); {THREADS} threads; warm-up: the first lap beyond a measured one",
    )
    table.show()
    if given.markdown:
        write_markdown(given.markdown, "Training", about("CPU"), [table])
    if given.json:
        facts = {"rows": plan.rows, "row_length": plan.row_length, "num_traces": plan.num_traces}
        race.write(given.json, "training", {"overrides": plan.workload.overrides, **facts}, results, to)


if __name__ == "__main__":
    main()
