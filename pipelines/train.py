"""DVC's stage `train`: prepared data and initial weights in, `runs/dvc/train/` (logs, model) out."""

import sys

from tunix_rt.__main__ import guarded
from tunix_rt.pipeline import run_stage, wants_traceback

if __name__ == "__main__":
    sys.exit(guarded(lambda: run_stage("train"), wants_traceback()))
