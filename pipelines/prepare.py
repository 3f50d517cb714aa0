"""DVC's stage `prepare`: a declared dataset and model in, `data/dvc/` out."""

import sys

from tunix_rt.__main__ import guarded
from tunix_rt.pipeline import run_stage, wants_traceback

if __name__ == "__main__":
    sys.exit(guarded(lambda: run_stage("prepare"), wants_traceback()))
