"""Runs the stages for DVC: each in its own process and folder `runs/dvc/<stage>/`, all of them one run, `runs/dvc/`.

What training and prediction write persists, so that an interrupted stage can resume; the engine clears it if it belongs
to something else. Checkpoints are next to it, not tracked by DVC: they are not needed once the model is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tunix_rt.backends import heap
from tunix_rt.config.load import check
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.engine.context import RunContext, chain_of
from tunix_rt.engine.engine import claim, do, session
from tunix_rt.engine.stages import STAGES
from tunix_rt.errors import ConfigError
from tunix_rt.experiment import show
from tunix_rt.inputs import checked_digests
from tunix_rt.runs.folder import PIPELINE, RunFolder
from tunix_rt.runs.interrupt import watching
from tunix_rt.tracking.registry import ModelStore

PARAMS = Path("params.yaml")


def read_params() -> ExperimentConfig:
    """The experiment that DVC composed into `params.yaml`. Raises ConfigError."""
    from omegaconf import OmegaConf

    if not PARAMS.exists():
        raise ConfigError(f"{PARAMS}: no such file here; DVC's stages run in the folder of dvc.yaml")
    return check(cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(PARAMS))))


def wants_traceback() -> bool:
    """Whether `params.yaml` has `debug: true`, even if the rest is wrong."""
    return PARAMS.exists() and "debug: true" in PARAMS.read_text("utf-8").splitlines()


def workspace(directory: Path) -> Path:
    """The checkout that a queued experiment was copied from (DVC puts the copies below `.dvc/tmp/exps`)."""
    for parent in directory.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return parent.parents[2]
    return directory


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
        context = RunContext(config, digests, chain_of(config, digests), run, interrupt, store, home=home)
        claim(stage, context)
        with session(context, (stage,)):
            do(stage, context)
    if stage == STAGES[-1]:
        show(run, config.tracking)
    return 0
