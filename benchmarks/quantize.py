"""What a quantised base changes: the log-probabilities of the data under it, against those under the full base.

Both score the same rows of traces, without an adapter, in one process and in float32.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np

from benchmarks import race
from benchmarks.workload import Workload, parser
from tunix_rt.backends import registry
from tunix_rt.backends.interface import Backend
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.schedule import batch_schedule
from tunix_rt.config.choices import Quantization
from tunix_rt.machine import cache_folder
from tunix_rt.models.adapter import linear
from tunix_rt.models.folder import read_architecture
from tunix_rt.models.quantize import size_of
from tunix_rt.terminal import out, table

DEFAULTS = ("model=smollm2_135m", "tokenizer=pretrained", "format=chat", "training.global_batch_size=4")
KINDS: tuple[Quantization | None, ...] = (None, *get_args(Quantization))


@dataclass(frozen=True, slots=True)
class Found:
    """How far a base is from the full one, per target token."""

    mebibytes: float
    """Size of the layers' matrices."""
    loss: float
    mean: float
    """Mean |difference| of log-probabilities."""
    largest: float
    seconds: float
    """Of scoring the batches once more, when everything is compiled."""

    def shown(self) -> tuple[str, ...]:
        """A row of the table."""
        return (
            f"{self.mebibytes:,.0f}",
            *(f"{number:.4f}" for number in (self.loss, self.mean)),
            *(f"{number:.1f}" for number in (self.largest, self.seconds)),
        )


def logprobs(engine: Backend, state: Any, batches: list[Batch]) -> Any:
    """Log-probability of each target, one after the other."""
    found = [(engine.fetch(engine.logprobs(state, batch))["logprobs"], batch.weights) for batch in batches]
    return np.concatenate([values[weights > 0] for values, weights in found])


def measured(engine: Backend, workload: Workload, batches: list[Batch]) -> dict[str, Found]:
    """Each kind of base by name; `full` is the one that the others are compared with."""
    folder, made, full = workload.prepared().model_folder, dict[str, Found](), None
    matrices = [tensor.matrix_shape for tensor in linear(read_architecture(folder))]
    for kind in KINDS:
        state = engine.load(folder, None, None, kind)
        found = logprobs(engine, state, batches).astype(np.float64)
        full = found if full is None else full
        start = time.perf_counter()
        logprobs(engine, state, batches)
        seconds = time.perf_counter() - start
        size = sum(4 * out * width if kind is None else size_of(kind, (out, width)) for out, width in matrices)
        apart = np.abs(found - full)
        made[kind or "full"] = Found(size / 2**20, -found.mean(), apart.mean(), apart.max(), seconds)
    return made


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.quantize`."""
    made = parser(__doc__ or "", rounds=1)
    made.add_argument("--batches", type=int, default=4, help="batches that are scored (default %(default)s)")
    given = made.parse_args(arguments)
    results: dict[str, dict[str, Found]] = {}
    for backend in given.backends:
        workload = Workload.of(*DEFAULTS, *given.overrides).on(backend)
        config = workload.config
        order, _ = batch_schedule(config.training, workload.prepared())
        batches = [order.batch_at(step) for step in range(given.batches)]
        engine = registry.create(config.backend, config.hardware, cache_folder())
        results[backend] = measured(engine, workload, batches)
        targets = sum(int((batch.weights > 0).sum()) for batch in batches)
        rows = [(kind, *one.shown()) for kind, one in results[backend].items()]
        columns = ("base", "MiB", "loss", "mean |difference|", "largest", "seconds")
        table(f"{backend}: log-probabilities of {targets:,} targets", columns, rows)
    out(f"{race.THREADS} threads")
    if given.json:
        plain = {backend: {kind: asdict(one) for kind, one in found.items()} for backend, found in results.items()}
        race.write_json(given.json, "quantize", {"overrides": given.overrides}, {"backends": plain})


if __name__ == "__main__":
    main()
