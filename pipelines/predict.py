"""DVC's stage `predict`: the trained model and prompts in, `runs/dvc/predict/` out."""

import sys

from tunix_rt.__main__ import guarded
from tunix_rt.pipeline import run_stage, wants_traceback

if __name__ == "__main__":
    sys.exit(guarded(lambda: run_stage("predict"), wants_traceback()))
