"""What a lap of training is: which traces, in how many updates. The same for ours and for theirs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.workload import Workload
from tunix_rt.batches.encoded import EncodedDataset
from tunix_rt.batches.schedule import batch_schedule
from tunix_rt.config.training import TrainingConfig


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
    def examples(self) -> list[tuple[list[int], list[int]]]:
        """Token ids and labels of each trace (-100: not a target), in the order in which ours are trained on."""
        dataset = EncodedDataset.open(self.workload.prepared().encoded("train"))
        sequences = (dataset.sequence(index) for index in self.chosen)
        return [(ids.tolist(), np.where(weights > 0, ids, -100).tolist()) for ids, weights in sequences]

    @property
    def num_traces(self) -> int:
        """Traces per update of theirs, for the same number of updates."""
        return math.ceil(len(self.chosen) / self.num_updates)
