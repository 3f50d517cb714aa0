"""Score the predictions of a run again by other rules: neither training nor predicting again.

`evaluate RUN evaluation=numeric` puts the group's file in the place of the recorded section,
`evaluate RUN evaluation.relative_tolerance=0.01` changes one value. The result is a run beside RUN that refers to
its predictions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Run the stages after prediction with the changed config, and show the result."""
    parser = argparse.ArgumentParser(
        prog="tunix_rt evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a name, a prefix or `last`")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of evaluation (or of tracking)")
    parser.add_argument("--root", default="runs", help="folder of the runs (run.root)")
    chosen = parser.parse_intermixed_args(list(arguments))

    from tunix_rt.config.change import changed
    from tunix_rt.config.load import check
    from tunix_rt.experiment import recorded_mapping, run, show
    from tunix_rt.runs.folder import RunFolder, find_run

    base = find_run(Path(chosen.root), chosen.run)
    config = check(changed(recorded_mapping(base), chosen.overrides, "evaluate"))
    result = run(config, base, keep=("train", "predict"))
    show(RunFolder(result.folder), config.tracking)
    return 0
