"""DVC's way through the stages: each in a process and a folder of its own, all of them one run.

    runs/dvc/            the run: config, status, the records of its stages, the report
    runs/dvc/<stage>/    what a stage wrote

DVC removes what a stage wrote before it runs it again, unless it persists. What training and prediction write
persists, so that an interrupted stage goes on; `_claim` clears it where it belongs to something else. Checkpoints
lie beside it, unknown to DVC: they are worth nothing once the model is there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tunix_rt.backends import heap, registry
from tunix_rt.config.identity import STAGES as DECLARED
from tunix_rt.config.identity import identities
from tunix_rt.config.load import check
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import ConfigError, InputError
from tunix_rt.experiment import done, ending, report_tracking, warn_of_tracking, write_config
from tunix_rt.files import JsonObject, read_json, write_json
from tunix_rt.inputs import cache_folder, checked_contents, data_record, source_digest
from tunix_rt.models.sources import folder_digest
from tunix_rt.runs.environment import command_line, gather, record_data
from tunix_rt.runs.folder import PIPELINE, RunFolder
from tunix_rt.runs.interrupt import Interrupt, watching
from tunix_rt.runs.secrets import mask_values
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.tracking import follow
from tunix_rt.tracking.registry import ModelStore
from tunix_rt.tracking.uri import resolve

STAGES = (*DECLARED, "report")
COMPUTING = ("train", "predict")
"""Stages that use a backend."""
FOLLOWED = ("train", "report")
"""Stages beside which a follower sends: while the curves grow, and when everything is there."""
PARAMS = Path("params.yaml")
SECONDS = "seconds.json"
"""Clock values stay out of the record of a stage, so that doing it again leaves the same bytes."""


@dataclass(frozen=True, slots=True)
class Here:
    """What a script in `pipelines/` hands to its stage."""

    config: ExperimentConfig
    identity: str
    """Of this stage."""
    run: RunFolder
    """Where the stage writes; what the earlier ones wrote is found through it."""
    prepared: PreparedData
    store: ModelStore
    """Of registered models."""
    cache: Path
    interrupt: Interrupt
    facts: JsonObject = field(default_factory=dict)
    """What the stage found on its way, for its record."""


def read_params() -> ExperimentConfig:
    """The experiment that DVC composed into `params.yaml`. Raises ConfigError."""
    from omegaconf import OmegaConf

    if not PARAMS.exists():
        raise ConfigError(f"{PARAMS}: no such file here; DVC's stages run in the folder of dvc.yaml")
    return check(cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(PARAMS))))


def wants_traceback() -> bool:
    """Whether `debug: true` stands in `params.yaml`, right or wrong as the rest may be."""
    return PARAMS.exists() and "debug: true" in PARAMS.read_text("utf-8").splitlines()


def workspace(directory: Path) -> Path:
    """The checkout that a queued experiment was copied from (DVC puts the copies below `.dvc/tmp/exps`)."""
    for parent in directory.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return parent.parents[2]
    return directory


@contextmanager
def stage(name: str) -> Iterator[Here]:
    """Do a stage in the block: recorded, locked, and sent to MLflow. Raises the errors of `tunix_rt.errors`."""
    heap.own_process()
    config = read_params()
    home = workspace(Path.cwd())
    contents = checked_contents(config, home / config.run.data)
    chain = identities(config, contents)
    chain["report"] = chain["evaluate"]
    whole = RunFolder(Path(config.run.root) / PIPELINE)
    with whole.locked(), watching(whole.path) as interrupt:
        run = _claim(whole, name, chain)
        write_config(config, whole)
        whole.begin({"identity": chain["evaluate"], "key": f"dvc-{source_digest()[:12]}"})
        whole.note_stage(name)
        with _sent(config, whole, name, home), ending(whole):
            _write_environment(config, whole, run, name)
            prepared = PreparedData(Path(config.run.data) / PIPELINE)
            store = ModelStore(resolve(config.tracking.uri, home))
            here = Here(config, chain[name], run, prepared, store, cache_folder(), interrupt)
            started = time.monotonic()
            yield here
            _record(whole, run, name, done(chain[name], started, here.facts))
            if name == "prepare":
                write_json(whole.data, mask_values(data_record(prepared)))
            if name == STAGES[-1]:
                record_data(whole.environment, contents, prepared.folder, folder_digest(prepared.model_folder))
                whole.end("finished")
            else:
                whole.end("waiting", f"{name} is done; `dvc repro` goes on with {STAGES[STAGES.index(name) + 1]}")


def _claim(whole: RunFolder, name: str, chain: dict[str, str]) -> RunFolder:
    """The stage's folder, with what an interruption of the same work left; and the records up to this stage."""
    run = whole if name == STAGES[-1] else RunFolder(whole.path / name)
    begun = {"identity": chain[name], "state": "begun", "source_sha256": source_digest()}
    if run.path != whole.path and run.stages().get(name) != begun:
        shutil.rmtree(run.path, ignore_errors=True)
    earlier = {other: _record_of(whole, other, chain[other]) for other in STAGES[: STAGES.index(name)]}
    write_json(whole.path / "stages.json", {other: record | {"folder": other} for other, record in earlier.items()})
    above = {other: record | {"folder": f"../{other}"} for other, record in earlier.items()}
    if run.path != whole.path:
        write_json(run.path / "stages.json", above | {name: begun})
        whole.record_stage(name, begun | {"folder": name})
    return run


def _record_of(whole: RunFolder, name: str, identity: str) -> JsonObject:
    """The record of an earlier stage. Raises InputError where that did other work than the params declare."""
    record = RunFolder(whole.path / name).stages().get(name, {})
    if (record.get("identity"), record.get("state")) != (identity, "done"):
        raise InputError(f"{whole.path / name}: not what {PARAMS} declares; `dvc repro` does the stages in order")
    seconds = whole.path / name / SECONDS
    return {**record, **(read_json(seconds) if seconds.exists() else {})}


def _record(whole: RunFolder, run: RunFolder, name: str, record: JsonObject) -> None:
    if run.path != whole.path:
        write_json(run.path / SECONDS, {"stage_seconds": record.pop("stage_seconds")})
        run.record_stage(name, record)
        record = _record_of(whole, name, record["identity"]) | {"folder": name}
    whole.record_stage(name, record)


def _write_environment(config: ExperimentConfig, whole: RunFolder, run: RunFolder, name: str) -> None:
    """Where the stage is done; of those without a backend, with what training knew of it."""
    trained = whole.path / "train" / whole.environment.name
    if name in COMPUTING:
        backend = registry.create(config.backend, config.hardware, cache_folder()).describe()
    else:
        backend = dict(read_json(trained)["backend"]) if trained.exists() and name != "prepare" else {}
    record = gather(command_line(), backend) | {"source_sha256": source_digest()}
    write_json(whole.environment, record)
    if name in COMPUTING:
        write_json(run.environment, record)


@contextmanager
def _sent(config: ExperimentConfig, whole: RunFolder, name: str, home: Path) -> Iterator[None]:
    """All stages are one run in MLflow: live while training, whole after the report, and whatever fails."""
    tracking = config.tracking
    follower = None
    if name in FOLLOWED:
        warn_of_tracking(tracking)
        follower = follow.spawn(whole.path, tracking, home)
    try:
        yield
    except BaseException:
        report_tracking(follower or follow.spawn(whole.path, tracking, home), tracking.wait_seconds)
        raise
    if follower is not None and name == STAGES[-1]:
        report_tracking(follower, tracking.wait_seconds)
