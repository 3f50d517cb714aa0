"""Predict again with the trained model of a run: other generation values, never training again.

`predict RUN generation.temperature=0.7` changes one value, `predict RUN generation=sample` puts the group's file
in the place of the recorded section. The result is a run beside RUN that refers to its model; it is scored as well.
`predict model.source=models:/NAME/VERSION` takes a registered model and the data of its run, wherever that was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt.options import Options

if TYPE_CHECKING:
    from tunix_rt.runs.folder import RunFolder

SOURCE = "model.source="


def _registered(model: str, overrides: Sequence[str]) -> RunFolder:
    from tunix_rt.config.load import compose
    from tunix_rt.records.registered import registered_run
    from tunix_rt.tracking.registry import ModelStore

    places = compose([word for word in overrides if word.split(".")[0] in ("tracking", "run")])
    return registered_run(model, ModelStore(places["tracking"]["uri"]), Path(places["run"]["data"]) / "models")


def main(arguments: Sequence[str]) -> int:
    """Run the stages after training with the changed config, and show the result."""
    parser = Options(__name__, __doc__)
    parser.run(", or model.source=models:/NAME/VERSION")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of generation, evaluation (or of where it runs)")
    parser.root()
    chosen = parser.parse(arguments)

    from tunix_rt.config.change import changed
    from tunix_rt.config.load import check
    from tunix_rt.experiment import recorded_mapping, run, show
    from tunix_rt.runs.folder import RunFolder, find_run

    if chosen.run.startswith(SOURCE):
        base = _registered(chosen.run.removeprefix(SOURCE), chosen.overrides)
        recorded = base.read_config()  # has the paths of its own host; the overrides set those used here
    else:
        base = find_run(chosen.root, chosen.run)
        recorded = recorded_mapping(base)
    config = check(changed(recorded, chosen.overrides, "predict"))
    result = run(config, base, keep=("train",))
    show(RunFolder(result.folder), config.tracking)
    return 0
