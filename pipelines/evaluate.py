"""DVC's stage `evaluate`: predictions and traces in, `runs/dvc/evaluate/` (verdicts, metrics) out."""

import sys

from tunix_rt.__main__ import guarded
from tunix_rt.pipeline import run_stage, wants_traceback

if __name__ == "__main__":
    sys.exit(guarded(lambda: run_stage("evaluate"), wants_traceback()))
