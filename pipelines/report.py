"""DVC's stage `report`: the records of all stages in; report, figures and tables in `runs/dvc/` out."""

import sys

from tunix_rt.__main__ import guarded
from tunix_rt.pipeline import run_stage, wants_traceback

if __name__ == "__main__":
    sys.exit(guarded(lambda: run_stage("report"), wants_traceback()))
