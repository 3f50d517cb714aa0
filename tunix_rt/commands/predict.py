"""Ask the trained model of a run something else: other generation values or other data, never training again.

`predict RUN generation.temperature=0.7` changes one value, `predict RUN generation=sample` puts the group's file
in the place of the recorded section. `predict RUN dataset=files dataset.name=new dataset.source.test.path=FILE`
asks the prompts of other data, with the model's own tokenizer and the run's format; those that the run was
trained on are counted. The result is a run beside RUN that refers to its model; it is scored as well.
`predict model.source=models:/NAME/VERSION` takes a registered model and the data of its run, or others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunix_rt.commands import Parser

SOURCE = "model.source="


def main(arguments: Sequence[str]) -> int:
    """Run the stages after training with the changed config, and show the result."""
    parser = Parser("predict", __doc__, "--root")
    parser.add_argument("run", help="a name, a prefix, `last`, or model.source=models:/NAME/VERSION")
    what = "generation, evaluation, dataset, format, backend (or of where it runs)"
    parser.add_argument("overrides", nargs="*", help=f"KEY=VALUE of {what}")
    chosen = parser.parse(arguments)

    from tunix_rt.config.change import asks_otherwise, changed
    from tunix_rt.config.load import check, compose
    from tunix_rt.experiment import on_devices_here, recorded_mapping, run, show
    from tunix_rt.records.asking import asking
    from tunix_rt.records.registered import registered_run
    from tunix_rt.runs.folder import RunFolder, find_run
    from tunix_rt.tracking.registry import ModelStore

    registered = chosen.run.removeprefix(SOURCE) if chosen.run.startswith(SOURCE) else None
    if registered is not None:
        places = compose([word for word in chosen.overrides if word.split(".")[0] in ("tracking", "run")])
        store, models = ModelStore(places["tracking"]["uri"]), Path(places["run"]["data"]) / "models"
        base = registered_run(registered, store, models)
        recorded = base.read_config()  # has the paths of its own host; the overrides set those used here
    else:
        base = find_run(chosen.root, chosen.run)
        recorded = recorded_mapping(base)
    # What was registered of a run that trained nothing is its start model, which its config looks for on its own host.
    as_it_is = registered is not None and recorded["training"]["max_steps"] == 0
    other = as_it_is or asks_otherwise(chosen.overrides)
    if other:
        config = asking(base, recorded, chosen.overrides, registered)
    else:
        config = check(changed(recorded, chosen.overrides, "predict"))
    config = on_devices_here(config, chosen.overrides)
    result = run(config) if other else run(config, base, keep=("train",))
    show(RunFolder(result.folder), config.tracking)
    return 0
