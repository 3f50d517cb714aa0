"""DVC's stage `first`, if the experiment begins from another one's model: that one, as far as it is not finished."""

import sys

from tunix_rt.__main__ import guarded
from tunix_rt.pipeline import run_first, wants_traceback

if __name__ == "__main__":
    sys.exit(guarded(run_first, wants_traceback()))
