"""TRL's `SFTTrainer` on the same traces: packed by best fit, one row at a time, the rows of an update accumulated.

Its fastest setting on a CPU: with several rows at once, or without padding, it is half as fast.
"""

from __future__ import annotations

import math
import tempfile
from typing import Any

from benchmarks.peers.watch import settings, stopwatch, timed
from benchmarks.race import THREADS, Lap, Ready
from benchmarks.training_case import TrainingCase


def trl_packed(plan: TrainingCase) -> Ready:
    """Laps of `SFTTrainer`."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, pack_dataset

    torch.set_num_threads(THREADS)
    folder, examples = plan.workload.prepared().model_folder, plan.examples
    tokens = sum(len(ids) - 1 for ids, _ in examples)
    rows = Dataset.from_dict({"input_ids": [ids for ids, _ in examples], "labels": [labels for _, labels in examples]})
    num_rows = len(pack_dataset(rows, plan.row_length, "bfd"))
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def lap() -> Lap:
        with tempfile.TemporaryDirectory() as output:
            arguments = SFTConfig(
                output_dir=output,
                per_device_train_batch_size=1,
                gradient_accumulation_steps=math.ceil(num_rows / plan.num_updates),
                packing=True,
                max_length=plan.row_length,
                gradient_checkpointing=False,
                dataset_num_proc=None,
                num_train_epochs=1,
                **settings(plan.workload.config),
            )
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            return _run(model, arguments, rows, tokenizer, tokens)

    return lap


def _run(model: Any, arguments: Any, rows: Any, tokenizer: Any, tokens: int) -> Lap:
    from trl import SFTTrainer

    watch = stopwatch(lambda: tokens)
    trainer = SFTTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer, callbacks=[watch])
    return timed(trainer, watch)
