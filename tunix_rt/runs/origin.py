"""The runs whose models a run started from."""

from __future__ import annotations

from pathlib import Path

from tunix_rt.runs.diff import value_at
from tunix_rt.runs.folder import RunFolder

STARTS = ("model.source.path", "model.adapter.path")
"""Keys of a config that may name a run's model."""


def run_of(model: Path) -> RunFolder | None:
    """The run that trained a model folder; None if the folder is no run's `model/`."""
    folder = model.expanduser().resolve()
    place = RunFolder(folder.parent)
    if folder.name != "model" or "train" not in place.stages():
        return None
    above = RunFolder(place.path.parent)  # of the stages of DVC, each has a folder below the run's
    return above if place.path.name == "train" and "train" in above.stages() else place


def starts_of(run: RunFolder) -> list[RunFolder]:
    """The runs whose models a run started from."""
    config = run.read_config()
    paths = (value_at(config, key) for key in STARTS)
    return [found for path in paths if isinstance(path, str) and (found := run_of(Path(path))) is not None]


def ancestors(run: RunFolder) -> list[RunFolder]:
    """`starts_of`, then the runs that these started from, each once."""
    known, left = {run.path.resolve(): run}, [run]
    while left:
        new = [other for other in starts_of(left.pop(0)) if other.path not in known]
        known |= {other.path: other for other in new}
        left += new
    return list(known.values())[1:]
