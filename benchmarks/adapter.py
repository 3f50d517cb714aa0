"""Training with LoRA, also on a quantised base, against training every weight: peak memory above that after import.

Each case is a separate process that imports its framework, reads its resident memory, loads the weights, does
some updates, and reads its peak resident memory. Both see the same batches. Saving is not measured (a checkpoint
of every weight and its moments is copied first, one of an adapter is small).
"""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import product
from multiprocessing import get_context

import psutil

from benchmarks import race
from benchmarks.workload import Workload, parser
from tunix_rt.terminal import out, table

MODEL = (
    "model=smollm2_135m",
    "tokenizer=pretrained",
    "schedule.warmup_steps=0",
    "training.row_length=448",
    "dataset.max_length=448",
    "dataset.on_overlong=drop",
)
"""Activations are the same either way, so the relative saving falls as a batch grows."""
WHAT = {"full": ("model/adapter=none",), "lora": ("model/adapter=lora",)}
QUANTIZED = {
    "int8": ("model/adapter=lora", "model.adapter.quantize=int8"),
    "nf4": ("model/adapter=lora", "model.adapter.quantize=nf4"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """The work of one process."""

    workload: Workload
    rows: int
    num_updates: int


@dataclass(frozen=True, slots=True)
class Peak:
    """Memory of a process, in bytes, and its loss."""

    after_import: int
    peak: int
    loss: float
    """Loss of the last update."""
    seconds: float
    """Time of the last update."""

    @property
    def above(self) -> int:
        """Peak memory of loading and training."""
        return self.peak - self.after_import


def measure(case: Case) -> Peak:
    """Load and train in this process."""
    from tunix_rt.backends import heap, registry
    from tunix_rt.batches.schedule import batch_schedule
    from tunix_rt.machine import cache_folder
    from tunix_rt.stages.train import setup_of

    heap.own_process()
    config, prepared = case.workload.config, case.workload.prepared()
    training = replace(config.training, global_batch_size=case.rows)
    order, _ = batch_schedule(training, prepared)
    engine = registry.create(config.backend, config.hardware, cache_folder())
    before = psutil.Process().memory_info().rss
    setup = setup_of(config.optimizer, training, config.model.adapter, prepared.model_folder)
    state, loss, seconds = engine.load(prepared.model_folder, setup), 0.0, 0.0
    for step in range(case.num_updates):
        start = time.perf_counter()
        batch = order.batch_at(step)
        state, measured = engine.train_step(state, batch, config.optimizer.learning_rate)
        loss = float(engine.fetch(measured)["loss_sum"]) / batch.divisor
        seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    return Peak(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, loss, seconds)


def alone(case: Case) -> Peak:
    """Run `measure` in a fresh process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, case).result()


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.adapter`."""
    made = parser(__doc__ or "", rounds=1)
    made.add_argument("--steps", type=int, default=2, help="updates (default %(default)s)")
    made.add_argument("--rows", type=int, default=1, help="rows of an update (default %(default)s)")
    made.add_argument("--quantized", action="store_true", help="also LoRA on a base in int8 and in nf4")
    given = made.parse_args(arguments)
    cases = {**WHAT, **QUANTIZED} if given.quantized else WHAT
    plain = Workload.of(*MODEL, *given.overrides)
    plain.prepared()
    peaks = {}
    for backend, what in product(given.backends, cases):
        workload = Workload((*plain.on(backend).overrides, *cases[what]))
        peaks[backend, what] = alone(Case(workload, given.rows, given.steps))
    rows = [
        (backend, *(_shown(peaks[backend, what]) for what in cases), f"{ratio(peaks, backend):.2f}")
        for backend in given.backends
    ]
    title = "peak memory above import, and time of the last update: every weight, LoRA, LoRA on a quantised base"
    table(title, ("backend", *cases, "lora / full"), rows)
    out(f"{given.steps} updates of {given.rows} rows; {race.THREADS} threads")
    if given.json:
        measured = {f"{backend} {what}": asdict(peak) for (backend, what), peak in peaks.items()}
        ratios = {backend: ratio(peaks, backend) for backend in given.backends}
        settings = {"overrides": plain.overrides, "rows": given.rows, "steps": given.steps}
        race.write_json(given.json, "adapter", settings, {"cases": measured, "ratios": ratios})


def _shown(peak: Peak) -> str:
    return f"{peak.above / 2**20:,.0f} MiB, {peak.seconds:.1f} s"


def ratio(peaks: dict[tuple[str, str], Peak], backend: str) -> float:
    """LoRA's memory divided by that of training every weight."""
    return peaks[backend, "lora"].above / peaks[backend, "full"].above


if __name__ == "__main__":
    main()
