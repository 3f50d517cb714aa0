"""Predict again with the trained model of a run: other generation values, never training again.

`predict RUN generation.temperature=0.7` changes one value, `predict RUN generation=sample` puts the group's file
in the place of the recorded section. The result is a run beside RUN that refers to its model; it is scored as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

SECTIONS = ("generation", "evaluation", "hardware", "tracking", "run", "debug")


def main(arguments: Sequence[str]) -> int:
    """Do the stages after training with the changed config, and show the result."""
    parser = argparse.ArgumentParser(
        prog="tunix_rt predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a name, a prefix or `last`")
    parser.add_argument("overrides", nargs="*", help=f"KEY=VALUE of {', '.join(SECTIONS[:2])} (or of where it runs)")
    parser.add_argument("--root", default="runs", help="folder of the runs (run.root)")
    chosen = parser.parse_args(list(arguments))

    from tunix_rt.config.change import changed
    from tunix_rt.config.load import check
    from tunix_rt.experiment import recorded_mapping, run, show
    from tunix_rt.runs.folder import RunFolder, find_run

    base = find_run(Path(chosen.root), chosen.run)
    config = check(changed(recorded_mapping(base), chosen.overrides, SECTIONS))
    result = run(config, base, keep=("train",))
    show(RunFolder(result.folder), config.tracking)
    return 0
