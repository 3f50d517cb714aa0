"""Runs the stages for DVC: each in its own process and folder `runs/dvc/<stage>/`, all of them one run, `runs/dvc/`.

What training and prediction write persists, so that an interrupted stage can resume; the engine clears it if it belongs
to something else. Checkpoints are next to it, not tracked by DVC: they are not needed once the model is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from tunix_rt.backends import heap
from tunix_rt.checked import replaced
from tunix_rt.config.load import check
from tunix_rt.config.model import FolderModel, RunModel
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.engine.context import RunContext, chain_of
from tunix_rt.engine.engine import claim, do, session
from tunix_rt.engine.stages import STAGES
from tunix_rt.errors import ConfigError, InputError
from tunix_rt.experiment import earlier_run, show
from tunix_rt.files import read_record, write_json
from tunix_rt.inputs import checked_digests
from tunix_rt.models.content import MADE
from tunix_rt.models.sources import materialise
from tunix_rt.precision import decided
from tunix_rt.runs.folder import PIPELINE, RunFolder
from tunix_rt.runs.interrupt import watching
from tunix_rt.runs.origin import workspace
from tunix_rt.tracking.registry import ModelStore

PARAMS = Path("params.yaml")
FIRST = "first.json"
"""Beside the model that the stage `first` leaves: which run trained it, by its path in the checkout."""


def read_params() -> ExperimentConfig:
    """The experiment that DVC composed into `params.yaml`. Raises ConfigError."""
    from omegaconf import OmegaConf

    if not PARAMS.exists():
        raise ConfigError(f"{PARAMS}: no such file here; DVC's stages run in the folder of dvc.yaml")
    return decided(check(cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(PARAMS)))))


def wants_traceback() -> bool:
    """Whether `params.yaml` has `debug: true`, even if the rest is wrong."""
    return PARAMS.exists() and "debug: true" in PARAMS.read_text("utf-8").splitlines()


def run_stage(name: str) -> int:
    """Run one stage of what `params.yaml` declares; returns 0. Raises the errors of `tunix_rt.errors`."""
    heap.own_process()
    config = read_params()
    home = workspace(Path.cwd())
    store = ModelStore.of(config.tracking, home)
    digests = checked_digests(config, store, home)
    run = RunFolder(Path(config.run.root) / PIPELINE)
    (stage,) = (stage for stage in STAGES if stage.name == name)
    with run.locked(patient=True), watching(run.path) as interrupt:
        earlier = _earlier(config, digests, home) if stage == STAGES[0] else None
        context = RunContext(config, digests, chain_of(config, digests), run, interrupt, store, None, home, earlier)
        claim(stage, context)
        with session(context, (stage,)):
            do(stage, context)
    if stage == STAGES[-1]:
        show(run, config.tracking)
    return 0


def run_first() -> int:
    """Run the experiment that `params.yaml` begins from, as far as it is not finished, and leave a copy of its model.

    Its run is one like any other, in the checkout, where every queued experiment finds it. Returns 0.
    """
    heap.own_process()
    here, config = Path.cwd(), read_params()
    os.chdir(workspace(here))
    earlier = earlier_run(config, RunFolder(here / config.run.root / PIPELINE))
    place = here / config.run.root / PIPELINE / "first"
    with replaced(place) as part:
        part.mkdir(parents=True)
        if earlier is not None:
            _leave(earlier, part, Path(config.run.data) / "models")
    return 0


def _leave(earlier: RunFolder, place: Path, models: Path) -> None:
    """A copy of its model, merged if it is an adapter, and where its run is."""
    model = materialise(FolderModel(kind="folder", path=str(earlier.model)), models)
    shutil.copytree(model, place / "model", ignore=shutil.ignore_patterns(MADE))
    identity = earlier.stages()["train"]["identity"]
    write_json(place / FIRST, {"run": earlier.name, "folder": os.path.relpath(earlier.path), "train": identity})


def _earlier(config: ExperimentConfig, digests: Mapping[str, str], home: Path) -> RunFolder | None:
    """The run that left the model in `dvc_path`. Raises InputError if it is another one than declared."""
    source = config.model.source
    if not isinstance(source, RunModel):
        return None
    record = read_record(Path(source.dvc_path).parent / FIRST)
    if record.get("train") != digests["model.source"]:
        raise InputError(f"{source.dvc_path}: not what is declared; `dvc repro` does the stages in order")
    return RunFolder(home / str(record["folder"]))
