"""tunix_rt: declare an experiment; one command trains on reasoning traces, predicts, scores and records it.

From a notebook: `tunix_rt.run("quickstart", ["backend=torch"])`. Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunix_rt.errors import InputError

if TYPE_CHECKING:
    from tunix_rt.experiment import Result

__version__ = "0.1.0"


def run(experiment: str | None = None, overrides: Sequence[str] = ()) -> Result:
    """Run an experiment file of `conf/experiment` (None: the plain config) with Hydra overrides.

    Returns the metrics, the predictions and the run folder. Raises the errors of `tunix_rt.errors`.
    """
    if isinstance(overrides, str):
        raise InputError(f"overrides: a list of overrides is expected, such as [{overrides!r}], not one string")
    from tunix_rt.config.load import check, compose
    from tunix_rt.experiment import run as run_experiment

    chosen = [f"+experiment={experiment}"] if experiment else []
    return run_experiment(check(compose([*chosen, *overrides])))
