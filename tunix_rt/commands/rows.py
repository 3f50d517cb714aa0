"""Print exactly which traces were in one step of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt.commands import Parser
from tunix_rt.errors import InputError
from tunix_rt.files import to_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import out, table

if TYPE_CHECKING:
    from tunix_rt.config.schema import ExperimentConfig
    from tunix_rt.traces.prepared import PreparedData


def main(arguments: Sequence[str]) -> int:
    """Recompute the step's batch (a pure function of seed and step), or read who was asked; print its traces."""
    parser = Parser("rows", __doc__, "run", "--json", "--root")
    parser.add_argument("step", type=int, help="the step, from 1")
    chosen = parser.parse(arguments)

    from tunix_rt.experiment import recorded_config
    from tunix_rt.traces.prepared import PreparedData

    run: RunFolder = chosen.run
    config, prepared = recorded_config(run), PreparedData(run.data_folder)
    if not config.training.trains:
        raise InputError(f"{run.name}: has no steps: nothing was trained, the model was asked as it is")
    traces = {trace.id: trace for trace in prepared.traces("train")}
    ids_at, num_steps = _steps(config, prepared, list(traces), run.rollouts)
    if not 1 <= chosen.step <= num_steps:
        raise InputError(f"step {chosen.step}: the run has steps 1 to {num_steps}")
    found = [traces[identity] for identity in ids_at(chosen.step)]
    if chosen.json:
        out(to_json({"run": run.name, "step": chosen.step, "traces": [trace.to_json() for trace in found]}))
        return 0
    if config.objective.data == "pairs":
        both = [(t.id, t.prompt, " ".join(t.own.texts), " ".join(t.rejected.texts)) for t in found if t.rejected]
        table(f"{run.name}, step {chosen.step}: {len(found)} pairs", ("trace", "prompt", "chosen", "rejected"), both)
        return 0
    rows = [(t.id, t.prompt, " ".join(step.content for step in t.steps), t.final_answer) for t in found]
    table(f"{run.name}, step {chosen.step}: {len(found)} traces", ("trace", "prompt", "steps", "answer"), rows)
    return 0


def _steps(
    config: ExperimentConfig, prepared: PreparedData, names: Sequence[str], rollouts: Path
) -> tuple[Callable[[int], list[str]], int]:
    """The traces of a step, from 1, and how many steps there are. `names`: of the training split."""
    from tunix_rt.batches.schedule import schedule_of
    from tunix_rt.objectives.rollouts import RolloutObjective
    from tunix_rt.rollouts.start import asked_prompts

    if isinstance(config.objective, RolloutObjective):
        prompts, facts = asked_prompts(config.objective, config.training, names, rollouts)
        return prompts.ids, int(facts["num_steps"])
    order, facts = schedule_of(config.objective.data, config.training, prepared)
    return lambda step: order.ids_at(step - 1), int(facts["num_steps"])
