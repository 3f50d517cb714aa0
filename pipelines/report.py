"""DVC's stage `report`: the records of all stages in; report, figures and tables in `runs/dvc/` out."""

import sys

from tunix_rt.__main__ import guarded
from tunix_rt.experiment import show
from tunix_rt.pipeline import stage, wants_traceback
from tunix_rt.stages.report import report
from tunix_rt.tracking.store import ui_command


def main() -> int:
    with stage("report") as here:
        report(run=here.run, ui_command=ui_command(here.config.tracking))
    show(here.run, here.config.tracking)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, wants_traceback()))
