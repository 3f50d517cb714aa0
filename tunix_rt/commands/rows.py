"""Print exactly which traces were in one step of a run."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.commands import Parser
from tunix_rt.errors import InputError
from tunix_rt.files import to_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import out, table


def main(arguments: Sequence[str]) -> int:
    """Recompute the step's batch (a pure function of seed and step) and print its traces."""
    parser = Parser("rows", __doc__, "run", "--json", "--root")
    parser.add_argument("step", type=int, help="the step, from 1")
    chosen = parser.parse(arguments)

    from tunix_rt.batches.schedule import schedule_of
    from tunix_rt.experiment import recorded_config
    from tunix_rt.traces.prepared import PreparedData

    run: RunFolder = chosen.run
    config, prepared = recorded_config(run), PreparedData(run.data_folder)
    if not config.training.trains:
        raise InputError(f"{run.name}: has no steps: nothing was trained, the model was asked as it is")
    order, facts = schedule_of(config.objective.data, config.training, prepared)
    if not 1 <= chosen.step <= int(facts["num_steps"]):
        raise InputError(f"step {chosen.step}: the run has steps 1 to {facts['num_steps']}")
    traces = {trace.id: trace for trace in prepared.traces("train")}
    found = [traces[identity] for identity in order.ids_at(chosen.step - 1)]
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
