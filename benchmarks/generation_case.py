"""What a lap of generation is: which prompts, which weights. The same for ours and for theirs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.workload import Workload
from tunix_rt.batches.reader import Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.files import read_json, write_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import say


@dataclass(frozen=True, slots=True)
class GenerationCase:
    """The work of one lap, the same for all contestants."""

    workload: Workload
    model: Path
    """Folder of the trained weights."""
    prompts: tuple[tuple[int, ...], ...]
    """Token ids of each prompt."""
    generation: GenerationConfig

    @classmethod
    def of(
        cls, workload: Workload, num_prompts: int, batch_size: int, max_new_tokens: int, endless: bool = False
    ) -> GenerationCase:
        """Train the weights if not done yet, and encode the first test prompts. `endless`: no token stops an answer."""
        from tunix_rt.experiment import run

        config = workload.config
        prepared = workload.prepared()
        say("generation: training the weights, unless that was done before")
        folder = RunFolder(run(config).folder)
        reader = Reader.of(folder.model, config.format)
        ids = [reader.encode(trace.conversation, trace.tools)[1] for trace in prepared.traces("test")[:num_prompts]]
        generation = replace(config.generation, batch_size=batch_size, max_new_tokens=max_new_tokens)
        model = _endless(folder.model) if endless else folder.model
        return cls(workload, model.resolve(), tuple(tuple(prompt.tolist()) for prompt in ids), generation)


def _endless(model: Path) -> Path:
    """A copy of a model folder without stop tokens, beside it."""
    copy = model.with_name("endless")
    shutil.copytree(model, copy, dirs_exist_ok=True)
    for name in ("generation_config.json", "config.json"):
        config = read_json(copy / name)
        write_json(copy / name, {key: value for key, value in config.items() if key != "eos_token_id"})
    return copy


def trained(backend: str, num_steps: int, num_prompts: int) -> tuple[str, ...]:
    """Overrides of the run that trains the weights."""
    return (
        f"backend={backend}",
        f"training.max_steps={num_steps}",
        "training.global_batch_size=3",
        "training.evaluate_every=null",
        "generation.max_new_tokens=1",
        f"dataset.limit.test={num_prompts}",
        f"schedule.warmup_steps={min(5, num_steps - 1)}",
    )
