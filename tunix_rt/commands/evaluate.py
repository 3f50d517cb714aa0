"""Score the predictions of a run again by other rules: neither training nor predicting again.

`evaluate RUN evaluation=numeric` puts the group's file in the place of the recorded section,
`evaluate RUN evaluation.relative_tolerance=0.01` changes one value. The result is a run beside RUN that refers to
its predictions.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.options import Options


def main(arguments: Sequence[str]) -> int:
    """Run the stages after prediction with the changed config, and show the result."""
    parser = Options(__name__, __doc__)
    parser.run()
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of evaluation (or of tracking)")
    parser.root()
    chosen = parser.parse(arguments)

    from tunix_rt.config.change import changed
    from tunix_rt.config.load import check
    from tunix_rt.experiment import recorded_mapping, run, show
    from tunix_rt.runs.folder import RunFolder, find_run

    base = find_run(chosen.root, chosen.run)
    config = check(changed(recorded_mapping(base), chosen.overrides, "evaluate"))
    result = run(config, base, keep=("train", "predict"))
    show(RunFolder(result.folder), config.tracking)
    return 0
