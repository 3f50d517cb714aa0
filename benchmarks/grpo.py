"""A step of GRPO, ours against TRL's `GRPOTrainer` with transformers' generation: samples per CPU-second.

All begin with the same trained weights, ask the same prompts equally often, sample at temperature 1 up to the same
number of tokens, judge every answer, and do one update of AdamW on all of them, in float32, without a reference model
(both defaults) and without gradient checkpointing (TRL's default is on, and slower). Ours is the product's loop: every
rollout is on disk before it is learned from, is judged in a second process (whose time is counted), and its
log-probabilities are compared with those of training, which is a forward pass more. The reward is the verdict on the
answer plus the share of right steps: so nearly every group has something to teach, and ours, which leaves out the
others, learns from as many samples.
The texts are drawn by other random numbers, so the numbers of sampled tokens are shown beside the result. Measured from
before the first prompt to the end of the last update, without loading, saving and compilation.
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import race
from benchmarks.generation_case import trained
from benchmarks.grpo_case import GrpoCase
from benchmarks.peers.trl_grpo import trl_grpo
from benchmarks.race import THREADS, Clock, Lap, Ready
from benchmarks.workload import Workload, parser
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.terminal import out

TRL = "TRL"


def ours(case: GrpoCase, backend: str) -> Ready:
    """Laps of `training/loop.py` on the source of rollouts, as in every experiment."""
    from tunix_rt.backends import registry
    from tunix_rt.evaluation.reward import Rewarder
    from tunix_rt.machine import cache_folder
    from tunix_rt.stages.train import setup_of

    config, prepared = case.workload.on(backend).config, case.workload.prepared()
    engine = registry.create(config.backend, config.hardware, cache_folder())
    setup = setup_of(config.optimizer, config.training, None, prepared.model_folder)
    judge = Rewarder(config.evaluation, case.objective.reward, case.objective.rollout.max_new_tokens)
    judge.__enter__()
    atexit.register(judge.__exit__, None, None, None)

    def lap() -> Lap:
        state = engine.load(prepared.model_folder, setup)
        with tempfile.TemporaryDirectory() as folder:
            return _run_loop(case, config, engine, state, judge, Path(folder))

    return lap


def _run_loop(case: GrpoCase, config: ExperimentConfig, engine: Any, state: Any, judge: Any, folder: Path) -> Lap:
    from tunix_rt.evaluation.answers import is_right
    from tunix_rt.rollouts.start import rollout_source
    from tunix_rt.runs.interrupt import Interrupt
    from tunix_rt.runs.log import MetricsLog
    from tunix_rt.training.checkpoint import Checkpoints, Progress
    from tunix_rt.training.loop import TrainPlan, train

    interrupt = Interrupt(folder / "stop")
    verdict = partial(is_right, evaluation=config.evaluation)
    source, _ = rollout_source(
        case.objective, config.training, case.workload.prepared(), config.format, engine, judge, verdict, None, None,
        folder / "rollouts", interrupt,
    )  # fmt: skip
    log = MetricsLog(folder / "metrics.jsonl", folder / "timings.jsonl", exact=True)
    laps: list[Lap] = []

    def stop_the_clock(_state: Any, _step: int) -> Mapping[str, float]:
        """Called after the last update's metrics have been fetched and before the state is saved."""
        lap = clock.lap(case.num_samples, **_facts(log))
        laps.append(replace(lap, cpu_seconds=lap.cpu_seconds + _judging() - before))
        return {"eval/none": 0.0}

    work = TrainPlan(
        num_steps=case.num_steps,
        source=source,
        rate_at=lambda _step: config.optimizer.learning_rate,
        evaluate=stop_the_clock,
    )
    training = replace(config.training, evaluate_every=case.num_steps)
    checkpoints = Checkpoints(folder / "checkpoints", {}, keep=1)
    cadence = replace(config.checkpoint, save_every=None)
    before, clock = _judging(), Clock()
    train(engine, state, Progress(), work, training, cadence, log, checkpoints, interrupt)
    (lap,) = laps
    return lap


def _judging() -> float:
    """CPU-seconds of the process that judges, so far."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children())


def _facts(log: Any) -> dict[str, float]:
    def mean(name: str) -> float:
        return float(np.mean([value for _, value in log.series(f"rollout/{name}")]))

    return {"tokens a sample": mean("length"), "reward": mean("reward"), "dead groups": mean("dead_groups")}


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.grpo`."""
    made = parser(__doc__ or "", rounds=3)
    made.add_argument("--weights", type=int, default=100, help="updates of the weights before (default %(default)s)")
    made.add_argument("--steps", type=int, default=1, help="steps in a lap (default %(default)s)")
    made.add_argument("--prompts", type=int, default=8, help="prompts a step (default %(default)s)")
    made.add_argument("--samples", type=int, default=8, help="samples a prompt (default %(default)s)")
    made.add_argument("--max-new-tokens", type=int, default=384, help="at most so many a sample (default %(default)s)")
    given = made.parse_args(arguments)
    before = Workload.of(*trained(given.backends[0], given.weights, 64), *given.overrides)
    case = GrpoCase.of(
        before,
        "objective=grpo",
        f"training.max_steps={given.steps}",
        f"objective.rollout.prompts_per_step={given.prompts}",
        f"objective.rollout.samples_per_prompt={given.samples}",
        f"objective.rollout.max_new_tokens={given.max_new_tokens}",
        f"objective.rollout.batch_size={given.prompts * given.samples}",
        "objective.reward.weights={answer: 1.0, steps: 1.0}",
        "schedule.warmup_steps=0",
        "hardware.local_batch_size=8",
    )
    contestants = {name: partial(ours, case, name) for name in given.backends}
    results = race.run({**contestants, TRL: partial(trl_grpo, case)}, given.rounds)
    race.show("a step of GRPO: ours against TRL's GRPOTrainer", results, TRL, unit="samples")
    out(
        f"{given.steps} steps of {given.prompts} prompts with {given.samples} samples of at most "
        f"{given.max_new_tokens} tokens; {THREADS} threads; warm-up: what the first lap took beyond a measured one "
        "(compilation)"
    )
    if given.json:
        settings = {"overrides": case.workload.overrides, "model": str(case.model)}
        race.write(given.json, "grpo", settings, results, TRL)


if __name__ == "__main__":
    main()
