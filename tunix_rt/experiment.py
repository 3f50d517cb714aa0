"""The stages in a row, in one run folder: what is finished is not run again, and every end is recorded.

The only places that see the whole config are this one and those above it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunix_rt.backends import registry
from tunix_rt.batches.reader import Reader
from tunix_rt.config.execution import TrackingConfig
from tunix_rt.config.identity import identities, plain
from tunix_rt.config.load import check
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import InputError, Interrupted, TunixError
from tunix_rt.files import JsonObject, read_json, write_json, write_text
from tunix_rt.inference.answer import Answerer
from tunix_rt.inputs import (
    cache_folder,
    check_family,
    checked_contents,
    data_record,
    prepared_data,
    prepared_of,
    source_digest,
    sources_of,
)
from tunix_rt.models.adapter_folder import is_adapter, opened
from tunix_rt.models.sources import folder_digest
from tunix_rt.report.summary import summary
from tunix_rt.runs.environment import command_line, gather, record_data
from tunix_rt.runs.folder import RunFolder, choose, find_done
from tunix_rt.runs.interrupt import Interrupt, watching
from tunix_rt.runs.secrets import mask_values
from tunix_rt.runs.sweep import MEMBERSHIP, SweepFolder
from tunix_rt.stages.evaluate import evaluate
from tunix_rt.stages.predict import predict
from tunix_rt.stages.report import report
from tunix_rt.stages.train import train
from tunix_rt.terminal import say, table, warn
from tunix_rt.traces.prediction import Prediction, read_predictions
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.tracking.store import ui_command
from tunix_rt.tracking.syncer import syncing, warn_of_trouble


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run."""

    folder: Path
    metrics: JsonObject
    """`metrics.json`; see docs/metrics.md."""
    baseline_metrics: JsonObject | None
    """The same of what training began with, where `generation.baseline` asked for it."""

    @property
    def predictions(self) -> list[Prediction]:
        """Every prediction, in order of the test split and sample."""
        return list(read_predictions(RunFolder(self.folder).predictions))


def run(
    config: ExperimentConfig, base: RunFolder | None = None, keep: Sequence[str] = (), sweep: Path | None = None
) -> Result:
    """Run what of the experiment is not finished yet, and return its result. `sweep`: whose member it is.

    `keep`: stages that are not done again, whatever the config says of them: those of the run `base` count.
    Raises the errors of `tunix_rt.errors`; whatever happens, the run folder says how it ended.
    """
    registry.require(config.backend.name)
    check_family(config)
    kept = {} if base is None else {stage: _finished(base, stage) for stage in ("prepare", *keep)}
    contents = checked_contents(config) if base is None else sources_of(base)
    chain = identities(config, contents, kept)
    folder = choose(Path(config.run.root), config.name, chain["evaluate"], config.run.new)
    with folder.locked():
        if folder.is_done("report", chain["evaluate"]):
            say(f"{folder.name}: finished before; nothing is run again (run.new=true starts anew)")
            _warn_of_other_code(folder)
            return _result(folder)
        if sweep is not None:
            write_json(folder.path / MEMBERSHIP, {"folder": os.path.relpath(sweep, folder.path)})
        with _recorded(config, folder, sweep), watching(folder.path) as interrupt:
            _stages(Work(config, contents, chain, folder, base), interrupt)
    return _result(folder)


def _finished(run: RunFolder, stage: str) -> str:
    """The identity of a stage that a run has finished. Raises InputError where it has not."""
    record = run.stages().get(stage, {})
    if record.get("state") != "done":
        raise InputError(f"{run.name}: its stage {stage} is not finished; run its command again first")
    return str(record["identity"])


def _result(folder: RunFolder) -> Result:
    baseline = dict(read_json(folder.baseline_metrics)) if folder.baseline_metrics.exists() else None
    return Result(folder.path, dict(read_json(folder.metrics)), baseline)


@contextmanager
def _recorded(config: ExperimentConfig, folder: RunFolder, sweep: Path | None) -> Iterator[None]:
    """Record beginning and end of the work in the folder, and let a sync process send it on meanwhile."""
    if sweep is None:  # it looked before its first member
        warn_of_trouble(config.tracking)
    write_config(config, folder)
    folder.begin()
    with syncing(folder.path, config.tracking, sweep=None if sweep is None else SweepFolder(sweep)):
        with ending(folder):
            yield
        folder.end("finished")


def write_config(config: ExperimentConfig, folder: RunFolder) -> None:
    """Leave the resolved config in the run folder."""
    from omegaconf import OmegaConf

    write_text(folder.config, OmegaConf.to_yaml(OmegaConf.create(mask_values(plain(config)))))


@contextmanager
def ending(folder: RunFolder) -> Iterator[None]:
    """Record in the folder how the work ended, unless it ended well."""
    try:
        yield
    except Interrupted as error:
        folder.end("interrupted", str(error), error.exit_code)
        raise
    except TunixError as error:
        folder.end("failed", str(error), error.exit_code)
        raise
    except BaseException as error:
        folder.end("failed", f"{type(error).__name__}: {error}", 1)
        raise


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done, and where."""

    config: ExperimentConfig
    contents: dict[str, str]
    """Digest of each local file and model that the config names."""
    chain: dict[str, str]
    """The identity of each stage."""
    folder: RunFolder
    base: RunFolder | None
    """A run whose finished stages count."""

    def do(self, name: str, work: Callable[[], JsonObject | None]) -> None:
        """Do `work`, unless it is done here, or in a run whose training or predictions can be referred to."""
        identity = self.chain["evaluate" if name == "report" else name]
        if self.folder.is_done(name, identity):
            return
        elsewhere = self._elsewhere(name, identity)
        if elsewhere is not None and elsewhere.place(name) != self.folder.path.resolve():
            say(f"{name}: done by {elsewhere.name}, which is used")
            other = os.path.relpath(elsewhere.place(name), self.folder.path.resolve())
            self.folder.record_stage(name, elsewhere.stages()[name] | {"folder": other})
            return
        self.folder.note_stage(name)
        started = time.monotonic()
        self.folder.record_stage(name, done(identity, started, work() or {}))

    def _elsewhere(self, name: str, identity: str) -> RunFolder | None:
        if name not in ("train", "predict"):
            return None
        if self.base is not None and self.base.is_done(name, identity):
            return self.base
        root, experiment = Path(self.config.run.root), self.config.name
        return None if self.config.run.new else find_done(root, experiment, name, identity)

    def prepared(self) -> PreparedData:
        """The prepared data, recorded in the run folder. It is shared: whether it is there, its own folder knows."""
        self.folder.note_stage("prepare")
        started = time.monotonic()
        identity = self.chain["prepare"]
        data = prepared_data(self.config, identity) if self.base is None else prepared_of(self.base, self.config)
        self.folder.record_stage("prepare", done(identity, started, {}))
        write_json(self.folder.data, mask_values(data_record(data)))
        record_data(self.folder.environment, self.contents, data.folder, folder_digest(data.model_folder))
        return data


def done(identity: str, started: float, facts: JsonObject) -> JsonObject:
    """The record of a stage that has been done since `started` (of `time.monotonic`)."""
    seconds = round(time.monotonic() - started, 3)
    return {"identity": identity, "state": "done", "stage_seconds": seconds, **facts}


def _stages(work: Work, interrupt: Interrupt) -> None:
    """Every stage that is not done. The engine is made first: a missing device is known before any work."""
    config, run, cache = work.config, work.folder, cache_folder()
    engine = registry.create(config.backend, config.hardware, cache)
    environment = gather(command_line(), engine.describe())
    write_json(run.environment, environment | {"source_sha256": source_digest()})
    prepared = work.prepared()
    work.do(
        "train",
        lambda: train(
            config.seed,
            config.format,
            config.backend,
            config.model.adapter,
            config.optimizer,
            config.schedule,
            config.training,
            prepared=prepared,
            run=run,
            identity=work.chain["train"],
            hardware=config.hardware,
            checkpoint=config.checkpoint,
            cache=cache,
            interrupt=interrupt,
            stop_step=config.run.stop_step,
        ),
    )
    work.do(
        "predict",
        lambda: predict(
            config.seed,
            config.format,
            config.backend,
            config.model.adapter,
            config.generation,
            prepared=prepared,
            run=run,
            hardware=config.hardware,
            cache=cache,
            interrupt=interrupt,
        ),
    )
    work.do(
        "evaluate",
        lambda: evaluate(config.evaluation, split=config.generation.split, prepared=prepared, run=run),
    )
    work.do("report", lambda: report(run=run, ui_command=ui_command(config.tracking)))


def show(run: RunFolder, tracking: TrackingConfig) -> None:
    """The table at the end of a run."""
    table(run.name, (), summary(run, ui_command(tracking)))


def recorded_config(run: RunFolder) -> ExperimentConfig:
    """The config a run was made with. Raises ConfigError where today's code knows it no longer."""
    return check(recorded_mapping(run))


def recorded_mapping(run: RunFolder) -> dict[str, Any]:
    """The same as plain data, unchecked."""
    from omegaconf import OmegaConf

    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(run.config)))


def answerer(run: RunFolder) -> Answerer:
    """The trained model of a run, ready to be asked. Raises InputError where there is none yet."""
    config = recorded_config(run)
    if not run.model.is_dir():
        raise InputError(f"{run.name}: no trained model there yet; run its command again to finish it")
    engine = registry.create(config.backend, config.hardware, cache_folder())
    base = prepared_of(run, config).model_folder if is_adapter(run.model) else run.model
    model, adapter = opened(run.model, base, folder_digest)
    reader = Reader.of(model, config.format)
    return Answerer(engine, engine.load(model, None, adapter), reader, config.generation, config.seed)


def _warn_of_other_code(folder: RunFolder) -> None:
    recorded = dict(read_json(folder.environment)).get("source_sha256")
    if recorded != source_digest():
        warn(f"{folder.name} was made by other code than today's; run.new=true runs it again")
