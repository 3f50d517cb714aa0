"""Our generation against the plain `model.generate`: generated tokens per CPU-second.

All answer the same prompts greedily with the same trained weights, float32, a key-value cache and batches of the
same size; theirs are padded on the left, in the order of the data, as in a plain script. The weights are trained
first, once, by an ordinary run, only until most completions end by themselves at various lengths: their content
does not matter here, their length does. The measurement spans from the prompts' ids to the completions' ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import race
from benchmarks.race import THEIRS, THREADS, Clock, Lap, Ready
from benchmarks.workload import Workload, parser
from tunix_rt.batches.reader import Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import out, say


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
    def of(cls, workload: Workload, num_prompts: int, batch_size: int, max_new_tokens: int) -> GenerationCase:
        """Train the weights if not done yet, and encode the first test prompts."""
        from tunix_rt.experiment import run

        config = workload.config
        prepared = workload.prepared()
        say("generation: training the weights, unless that was done before")
        folder = RunFolder(run(config).folder)
        reader = Reader.of(folder.model, config.format)
        ids = [reader.encode(trace.conversation, trace.tools)[1] for trace in prepared.traces("test")[:num_prompts]]
        generation = replace(config.generation, batch_size=batch_size, max_new_tokens=max_new_tokens)
        return cls(workload, folder.model.resolve(), tuple(tuple(prompt.tolist()) for prompt in ids), generation)


def ours(plan: GenerationCase, backend: str) -> Ready:
    """Laps of `Backend.generate`."""
    from tunix_rt.backends import registry
    from tunix_rt.machine import cache_folder

    config = plan.workload.on(backend).config
    engine = registry.create(config.backend, config.hardware, cache_folder())
    state = engine.load(plan.model, None)
    prompts = [np.array(prompt, np.int32) for prompt in plan.prompts]

    def lap() -> Lap:
        clock = Clock()
        pieces = list(engine.generate(state, prompts, plan.generation, [0] * len(prompts)))
        stopped = sum(piece.finish_reason == "stop" for piece in pieces)
        return clock.lap(sum(len(piece.ids) for piece in pieces), stopped=stopped)

    return lap


def theirs(plan: GenerationCase) -> Ready:
    """Laps of the `generate` method of `transformers`."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    model = AutoModelForCausalLM.from_pretrained(plan.model, dtype=torch.float32)
    size = plan.generation.batch_size
    batches = [plan.prompts[start : start + size] for start in range(0, len(plan.prompts), size)]

    def lap() -> Lap:
        clock = Clock()
        lengths = [length for batch in batches for length in _answer(model, batch, plan.generation.max_new_tokens)]
        stopped = sum(length < plan.generation.max_new_tokens for length in lengths)
        return clock.lap(sum(lengths), stopped=stopped)

    return lap


def _answer(model: Any, prompts: tuple[tuple[int, ...], ...], max_new_tokens: int) -> list[int]:
    """Number of generated tokens before the stop token, for each prompt."""
    import torch

    width = max(map(len, prompts))
    pad = model.generation_config.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    real = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    made = model.generate(ids, attention_mask=real, do_sample=False, use_cache=True, max_new_tokens=max_new_tokens)
    stops = made[:, width:] == model.generation_config.eos_token_id
    lengths = torch.where(stops.any(1), stops.int().argmax(1), stops.shape[1])
    return [int(length) for length in lengths]


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


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.generation`."""
    made = parser(__doc__ or "", rounds=3)
    made.add_argument("--steps", type=int, default=100, help="updates of the weights before (default %(default)s)")
    made.add_argument("--prompts", type=int, default=64, help="prompts in a lap (default %(default)s)")
    made.add_argument("--batch-size", type=int, default=32, help="sequences decoded together (default %(default)s)")
    made.add_argument("--max-new-tokens", type=int, default=384, help="at most so many a prompt (default %(default)s)")
    given = made.parse_args(arguments)
    words = trained(given.backends[0], given.steps, given.prompts)
    plan = GenerationCase.of(
        Workload.of(*words, *given.overrides), given.prompts, given.batch_size, given.max_new_tokens
    )
    contestants = {name: partial(ours, plan, name) for name in given.backends}
    results = race.run({**contestants, THEIRS: partial(theirs, plan)}, given.rounds)
    race.show("generation: ours against transformers' generate, greedy", results)
    out(
        f"{len(plan.prompts)} prompts in batches of {given.batch_size}, at most {given.max_new_tokens} new tokens; "
        f"{THREADS} threads; warm-up: what the first lap took beyond a measured one (compilation)"
    )
    if given.json:
        sizes = {"prompts": len(plan.prompts), "batch_size": given.batch_size, "max_new_tokens": given.max_new_tokens}
        race.write(given.json, "generation", {"overrides": plan.workload.overrides, **sizes}, results)


if __name__ == "__main__":
    main()
