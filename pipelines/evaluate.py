"""DVC's stage `evaluate`: predictions and traces in, `runs/dvc/evaluate/` (verdicts, metrics) out."""

import sys

from tunix_rt.__main__ import guarded
from tunix_rt.pipeline import stage, wants_traceback
from tunix_rt.stages.evaluate import evaluate


def main() -> int:
    with stage("evaluate") as here:
        split = here.config.generation.split
        evaluate(here.config.evaluation, split=split, prepared=here.prepared, run=here.run)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, wants_traceback()))
