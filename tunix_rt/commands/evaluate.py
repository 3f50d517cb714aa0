"""Score the predictions of a run again by other rules: neither training nor predicting again.

`evaluate RUN evaluation=number` puts the group's file in the place of the recorded section,
`evaluate RUN evaluation.extract=[boxed]` changes one value. The result is a run beside RUN that refers to
its predictions.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.commands import Parser


def main(arguments: Sequence[str]) -> int:
    """Run the stages after prediction with the changed config, and show the result."""
    parser = Parser("evaluate", __doc__, "run", "--root")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of evaluation (or of tracking)")
    chosen = parser.parse(arguments)

    from tunix_rt.config.change import changed
    from tunix_rt.config.load import check
    from tunix_rt.experiment import on_devices_here, recorded_mapping, run, show
    from tunix_rt.runs.folder import RunFolder

    config = check(changed(recorded_mapping(chosen.run), chosen.overrides, "evaluate"))
    config = on_devices_here(config, chosen.overrides)
    show(RunFolder(run(config, chosen.run, keep=("train", "predict")).folder), config.tracking)
    return 0
