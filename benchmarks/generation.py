"""Our generation against what else one would use: generated tokens per CPU-second and per second.

All answer the same prompts greedily with the same trained weights, float32 and a key-value cache, at most as many at
once: `generate` of transformers in the order of the data, as in a plain script, and with like lengths together;
and vLLM for CPUs, which wants an environment of its own (`--vllm PYTHON`). The weights are trained first, once, by an
ordinary run; their content does not matter here, their length does: with `--endless` no token stops an answer, so that
all make the same number. The measurement spans from the prompts' ids to the completions' ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import race
from benchmarks.generation_case import GenerationCase, trained
from benchmarks.peers.generate import generate
from benchmarks.peers.vllm import vllm
from benchmarks.race import THREADS, Clock, Lap, Ready
from benchmarks.report import about, write_markdown
from benchmarks.workload import Workload, parse, parser

PEERS: dict[str, Callable[[GenerationCase], Ready]] = {
    "generate, order of the data": partial(generate, order="data"),
    "generate, like lengths": partial(generate, order="by_length"),
}


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


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.generation`."""
    made = parser(__doc__ or "", rounds=3)
    made.add_argument("--steps", type=int, default=100, help="updates of the weights before (default %(default)s)")
    made.add_argument("--prompts", type=int, default=64, help="prompts in a lap (default %(default)s)")
    made.add_argument("--batch-size", type=int, default=64, help="sequences decoded together (default %(default)s)")
    made.add_argument("--max-new-tokens", type=int, default=96, help="at most so many a prompt (default %(default)s)")
    made.add_argument("--endless", action="store_true", help="no token stops an answer: equal work for all")
    made.add_argument("--peers", default=";".join(PEERS), help="by semicolon (default: %(default)s)")
    made.add_argument("--vllm", type=Path, metavar="PYTHON", help="also vLLM, in the environment of this interpreter")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to this file")
    given = parse(made, arguments, {"steps": 2, "prompts": 4, "batch_size": 2, "max_new_tokens": 6})
    words = trained(given.backends[0], given.steps, given.prompts)
    sizes = (given.prompts, given.batch_size, given.max_new_tokens)
    plan = GenerationCase.of(Workload.of(*words, *given.overrides), *sizes, given.endless)
    peers = {name: PEERS[name] for name in given.peers.split(";")}
    if given.vllm:
        peers["vLLM"] = partial(vllm, python=given.vllm)
    contestants = {name: partial(ours, plan, name) for name in given.backends}
    results = race.run(contestants | {name: partial(peer, plan) for name, peer in peers.items()}, given.rounds)
    to = race.hardest(results, given.backends)
    note = (
        f"{len(plan.prompts)} prompts in batches of {given.batch_size}, at most {given.max_new_tokens} new tokens"
        f"{', none stops' if given.endless else ''}; {THREADS} threads; warm-up: the first lap beyond a measured one"
    )
    table = replace(race.shown(f"generation, relative to the fastest peer: {to}", results, to), note=note)
    table.show()
    if given.markdown:
        write_markdown(given.markdown, "Generation", about("CPU"), [table])
    if given.json:
        named = dict(zip(("prompts", "batch_size", "max_new_tokens"), sizes, strict=True))
        race.write(given.json, "generation", {"overrides": plan.workload.overrides, **named}, results, to)


if __name__ == "__main__":
    main()
