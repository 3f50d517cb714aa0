"""The runs whose models a run started from."""

from __future__ import annotations

import os
from pathlib import Path

from tunix_rt.files import JsonObject, read_record
from tunix_rt.runs.diff import value_at
from tunix_rt.runs.folder import RunFolder

STARTS = ("model.source.path", "model.adapter.path")
"""Keys of a config that may name a run's model."""


BEGINS = "begins_from"
"""Key of `data.json`: the name and, relative to that file, the folder of the run whose model a run begins from."""


def workspace(directory: Path) -> Path:
    """The checkout that a queued experiment was copied from (DVC puts the copies below `.dvc/tmp/exps`)."""
    for parent in directory.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return parent.parents[2]
    return directory


def begins_with(earlier: RunFolder, place: Path) -> JsonObject:
    """What a `data.json` in `place` says of the run whose model its run begins from."""
    return {BEGINS: {"run": earlier.name, "folder": os.path.relpath(earlier.path.resolve(), _in_checkout(place))}}


def begun_from(run: RunFolder) -> RunFolder | None:
    """The run of an earlier experiment that a run began from, whether it is still there or not; None: of none."""
    record = read_record(run.data).get(BEGINS)
    return None if record is None else RunFolder((_in_checkout(run.data.parent) / str(record["folder"])).resolve())


def _in_checkout(place: Path) -> Path:
    """Where a folder will be once DVC takes it from the copy of a queued experiment into the checkout."""
    here, whole = Path.cwd().resolve(), place.resolve()
    return workspace(here) / whole.relative_to(here) if whole.is_relative_to(here) else whole


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
    config, earlier = run.read_config(), begun_from(run)
    paths = (value_at(config, key) for key in STARTS)
    found = [found for path in paths if isinstance(path, str) and (found := run_of(Path(path))) is not None]
    return found if earlier is None or not earlier.stages() else [earlier, *found]


def ancestors(run: RunFolder) -> list[RunFolder]:
    """`starts_of`, then the runs that these started from, each once."""
    known, left = {run.path.resolve(): run}, [run]
    while left:
        new = [other for other in starts_of(left.pop(0)) if other.path not in known]
        known |= {other.path: other for other in new}
        left += new
    return list(known.values())[1:]
