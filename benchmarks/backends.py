"""The backends side by side: what each can do (`benchmarks/capabilities.py`), and how fast, in one run.

Training is the loop of every experiment on packed rows; generation is greedy, in batches. All do the same work from
the same weights, in turn; ratios are to the first, `jax`. Needs all frameworks installed: see docs/backends.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from benchmarks import generation, race, training
from benchmarks.capabilities import CAPABILITIES, YES, capabilities
from benchmarks.generation_case import GenerationCase, trained
from benchmarks.race import THREADS, RaceResult
from benchmarks.training_case import TrainingCase
from benchmarks.workload import Workload, parser
from tunix_rt.files import JsonObject
from tunix_rt.terminal import out, table


def tried(backends: list[str]) -> dict[str, dict[str, str]]:
    """The capabilities of each backend, each tested in a separate process."""
    found = {}
    for name in backends:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found[name] = pool.submit(capabilities, name).result()
    return found


def train_race(backends: list[str], overrides: list[str], rounds: int, num_steps: int) -> dict[str, RaceResult]:
    """Race the backends at training."""
    plan = TrainingCase.of(Workload.of(*overrides), num_traces=16, num_updates=num_steps)
    return race.run({name: partial(training.ours, plan, name) for name in backends}, rounds)


def answer_race(
    backends: list[str], overrides: list[str], rounds: int, num_steps: int, num_prompts: int, max_new_tokens: int
) -> dict[str, RaceResult]:
    """Race the backends at generation, with weights trained for `num_steps` updates."""
    words = trained(backends[0], num_steps, num_prompts)
    plan = GenerationCase.of(Workload.of(*words, *overrides), num_prompts, num_prompts, max_new_tokens)
    return race.run({name: partial(generation.ours, plan, name) for name in backends}, rounds)


def show(found: Mapping[str, Mapping[str, str]]) -> None:
    """Print the capabilities as a table, and the message of each refusal."""
    backends = list(found)
    rows = [(name, *("yes" if found[each][name] == YES else "no" for each in backends)) for name in CAPABILITIES]
    table("what they can do", ("", *backends), rows)
    for name in CAPABILITIES:
        for each in backends:
            if found[each][name] != YES:
                out(f"{each}: {name}: {found[each][name]}")


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.backends`."""
    made = parser(__doc__ or "", rounds=3)
    made.add_argument("--steps", type=int, default=4, help="updates in a lap (default %(default)s)")
    made.add_argument("--weights", type=int, default=16, help="updates of what answers (default %(default)s)")
    made.add_argument("--prompts", type=int, default=32, help="prompts in a lap (default %(default)s)")
    made.add_argument("--max-new-tokens", type=int, default=96, help="at most so many a prompt (default %(default)s)")
    given = made.parse_args(arguments)
    backends = given.backends
    found = tried(backends)
    show(found)
    races = {
        "training": train_race(backends, given.overrides, given.rounds, given.steps),
        "generation": answer_race(
            backends, given.overrides, given.rounds, given.weights, given.prompts, given.max_new_tokens
        ),
    }
    for name, results in races.items():
        race.show(name, results, to=backends[0])
    if given.json:
        numbers: JsonObject = {name: race.numbers(results, to=backends[0]) for name, results in races.items()}
        settings = {"overrides": given.overrides, "threads": THREADS, "steps": given.steps, "prompts": given.prompts}
        race.write_json(given.json, "backends", settings, {"capabilities": found, **numbers})


if __name__ == "__main__":
    main()
