"""`transformers.Trainer` on the same traces, with dynamic padding (`DataCollatorForSeq2Seq`)."""

from __future__ import annotations

import tempfile
from typing import Any, Literal

from benchmarks.peers.watch import settings, stopwatch, timed
from benchmarks.race import THREADS, Lap, Ready
from benchmarks.training_case import TrainingCase


def trainer(plan: TrainingCase, order: Literal["random", "by_length"]) -> Ready:
    """Laps of `Trainer`; `by_length`: sorted, so that each batch holds traces of one length and nearly no padding."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, TrainingArguments

    torch.set_num_threads(THREADS)
    folder = plan.workload.prepared().model_folder
    examples = [{"input_ids": ids, "labels": labels} for ids, labels in plan.examples]
    if order == "by_length":
        examples.sort(key=lambda example: len(example["input_ids"]))
    collate = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(folder), padding="longest")

    def lap() -> Lap:
        with tempfile.TemporaryDirectory() as output:
            arguments = TrainingArguments(
                output_dir=output,
                per_device_train_batch_size=plan.num_traces,
                train_sampling_strategy="random" if order == "random" else "sequential",
                num_train_epochs=1,
                **settings(plan.workload.config),
            )
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            return _run(model, arguments, examples, collate)

    return lap


def _run(model: Any, arguments: Any, examples: list[dict[str, list[int]]], collate: Any) -> Lap:
    from transformers import Trainer

    tokens, watch = [0], stopwatch(lambda: tokens[0])

    def counted(portion: list[dict[str, list[int]]]) -> Any:
        """A trace of N tokens has N - 1 predictions, which is how ours counts."""
        batch = collate(portion)
        tokens[0] += int(batch["attention_mask"].sum()) - len(portion)
        return batch

    trainer = Trainer(model, arguments, counted, examples, callbacks=[watch])
    return timed(trainer, watch)
