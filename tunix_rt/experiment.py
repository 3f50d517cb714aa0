"""The stages in a row, in one run folder: what is finished is not run again, and every end is recorded.

The only places that see the whole config are this one and those above it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from tunix_rt.backends import registry
from tunix_rt.config.dataset import JsonlSource
from tunix_rt.config.identity import identities, plain
from tunix_rt.config.load import check
from tunix_rt.config.model import FreshModel
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import DataError, InputError, Interrupted, TunixError
from tunix_rt.files import JsonObject, read_json, sha256_bytes, sha256_file, write_json, write_text
from tunix_rt.inference.answer import Answerer
from tunix_rt.inference.prediction import Prediction, read_predictions
from tunix_rt.inference.reader import Reader
from tunix_rt.models.sources import content_digest
from tunix_rt.runs.environment import command_line, gather
from tunix_rt.runs.folder import RunFolder, choose, find_done
from tunix_rt.runs.interrupt import Interrupt, watching
from tunix_rt.runs.sweep import MEMBERSHIP
from tunix_rt.stages.evaluate import evaluate
from tunix_rt.stages.predict import predict
from tunix_rt.stages.prepare import prepare
from tunix_rt.stages.report import report
from tunix_rt.stages.train import train
from tunix_rt.terminal import say, warn
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.tracking import follow
from tunix_rt.tracking.uri import problem


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run."""

    folder: Path
    metrics: JsonObject
    """`metrics.json`; see docs/metrics.md."""
    baseline_metrics: JsonObject | None
    """The same of the untrained start, where `generation.baseline` asked for it."""

    @property
    def predictions(self) -> list[Prediction]:
        """Every prediction, in order of the test split and sample."""
        return list(read_predictions(RunFolder(self.folder).predictions))


def cache_folder() -> Path:
    """Compiled programs: outside the run folders, shared by all of them (`XDG_CACHE_HOME` is honoured)."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tunix_rt"


def content_digests(config: ExperimentConfig) -> dict[str, str]:
    """Digest of each local file and model that the config names. Raises DataError, ModelError where one is missing."""
    contents: dict[str, str] = {}
    source = config.dataset.source
    if isinstance(source, JsonlSource):
        for split, file in (
            ("train", source.train),
            ("validation", source.validation),
            ("test", source.test),
        ):
            if file is not None:
                if not Path(file.path).is_file():
                    origin = f"; it can be had from {source.origin}" if source.origin else ""
                    raise DataError(
                        f"dataset.source.{split}.path: {file.path}: no such file{origin}; put it there, "
                        f"or name yours with dataset.source.{split}.path=FILE"
                    )
                contents[f"dataset.source.{split}"] = sha256_file(Path(file.path))
    if not isinstance(config.model.source, FreshModel):
        contents["model.source"] = content_digest(config.model.source)
    return contents


def prepared_data(config: ExperimentConfig, identity: str) -> PreparedData:
    """The prepared data of an identity, made where it is not there yet; one process makes it, others wait."""
    from filelock import FileLock

    root = Path(config.run.data)
    folder = root / config.dataset.name / identity
    prepared = PreparedData(folder)
    if not prepared.is_whole:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{identity}.lock"):
            if not prepared.is_whole:
                shutil.rmtree(folder, ignore_errors=True)
                prepare(
                    config.seed,
                    config.model,
                    config.tokenizer,
                    config.dataset,
                    config.format,
                    folder=folder,
                    models=root / "models",
                )
    return prepared


def run(config: ExperimentConfig, sweep: Path | None = None) -> Result:
    """Run what of the experiment is not finished yet, and return its result. `sweep`: whose member it is.

    Raises the errors of `tunix_rt.errors`; whatever happens, the run folder says how it ended.
    """
    registry.require(config.backend.name)
    chain = identities(config, content_digests(config))
    folder = choose(Path(config.run.root), config.name, chain["evaluate"], config.run.new)
    with folder.locked():
        if folder.is_done("report", chain["evaluate"]):
            say(f"{folder.name}: finished before; nothing is run again (run.new=true starts anew)")
            _warn_of_other_code(folder)
            return _result(folder)
        if sweep is not None:
            write_json(folder.path / MEMBERSHIP, {"folder": os.path.relpath(sweep, folder.path)})
        with _recorded(config, folder), watching(folder.path) as interrupt:
            _stages(config, chain, folder, interrupt)
    return _result(folder)


def _result(folder: RunFolder) -> Result:
    baseline = dict(read_json(folder.baseline_metrics)) if folder.baseline_metrics.exists() else None
    return Result(folder.path, dict(read_json(folder.metrics)), baseline)


@contextmanager
def _recorded(config: ExperimentConfig, folder: RunFolder) -> Iterator[None]:
    """Record beginning and end of the work in the folder, and let the follower send it on meanwhile."""
    from omegaconf import OmegaConf

    write_text(folder.config, OmegaConf.to_yaml(OmegaConf.create(plain(config))))
    folder.begin()
    trouble = problem(config.tracking.uri) if config.tracking.kind == "mlflow" else None
    if trouble:
        warn(f"{trouble}; the run goes on, and what it writes is sent as soon as the server answers")
    follower = follow.spawn(folder.path, config.tracking)
    try:
        yield
        folder.end("finished")
    except Interrupted as error:
        folder.end("interrupted", str(error), error.exit_code)
        raise
    except TunixError as error:
        folder.end("failed", str(error), error.exit_code)
        raise
    except BaseException as error:
        folder.end("failed", f"{type(error).__name__}: {error}", 1)
        raise
    finally:
        _report_tracking(follower, config.tracking.wait_seconds)


def _report_tracking(follower: follow.Follower, seconds: float) -> None:
    """Wait for the follower, and say so where not everything has been sent."""
    report = follower.wait(seconds)
    if report is not None and not report.complete:
        warn(f"tracking: {report.message}")
    elif report is None and follower.process is not None:
        warn(f"tracking: still sending after {seconds:g} s; it goes on in the background")


def _prepared(config: ExperimentConfig, identity: str, folder: RunFolder) -> PreparedData:
    """The prepared data, recorded in the run folder. It is shared: whether it is there, its own folder knows."""
    folder.note_stage("prepare")
    started = time.monotonic()
    prepared = prepared_data(config, identity)
    folder.record_stage("prepare", _done(identity, started, {}))
    write_json(folder.data, prepared.manifest | {"folder": os.path.relpath(prepared.folder)})
    return prepared


def _stage(
    config: ExperimentConfig, folder: RunFolder, name: str, identity: str, work: Callable[[], JsonObject | None]
) -> None:
    """Do `work`, unless it is done here, or in a run whose training or predictions can be referred to."""
    if folder.is_done(name, identity):
        return
    shareable = name in ("train", "predict") and not config.run.new
    elsewhere = find_done(Path(config.run.root), config.name, name, identity) if shareable else None
    if elsewhere is not None and elsewhere.path != folder.path:
        say(f"{name}: done by {elsewhere.name}, which is used")
        other = os.path.relpath(elsewhere.path, folder.path)
        folder.record_stage(name, elsewhere.stages()[name] | {"folder": other})
        return
    folder.note_stage(name)
    started = time.monotonic()
    folder.record_stage(name, _done(identity, started, work() or {}))


def _done(identity: str, started: float, facts: JsonObject) -> JsonObject:
    seconds = round(time.monotonic() - started, 3)
    return {"identity": identity, "state": "done", "stage_seconds": seconds, **facts}


def _stages(config: ExperimentConfig, chain: dict[str, str], folder: RunFolder, interrupt: Interrupt) -> None:
    """Every stage that is not done. The engine is made first: a missing device is known before any work."""
    cache = cache_folder()
    engine = registry.create(config.backend, config.hardware, cache)
    environment = gather(command_line(), engine.describe())
    write_json(folder.environment, environment | {"source_sha256": source_digest()})
    prepared = _prepared(config, chain["prepare"], folder)
    stage = partial(_stage, config, folder)
    stage(
        "train",
        chain["train"],
        lambda: train(
            config.seed,
            config.format,
            config.backend,
            config.optimizer,
            config.schedule,
            config.training,
            prepared=prepared,
            run=folder,
            identity=chain["train"],
            hardware=config.hardware,
            checkpoint=config.checkpoint,
            cache=cache,
            interrupt=interrupt,
        ),
    )
    stage(
        "predict",
        chain["predict"],
        lambda: predict(
            config.seed,
            config.format,
            config.backend,
            config.generation,
            prepared=prepared,
            run=folder,
            hardware=config.hardware,
            cache=cache,
            interrupt=interrupt,
        ),
    )
    split = config.generation.split
    stage(
        "evaluate",
        chain["evaluate"],
        lambda: evaluate(config.evaluation, split=split, prepared=prepared, run=folder),
    )
    stage("report", chain["evaluate"], lambda: report(run=folder))


def recorded_config(run: RunFolder) -> ExperimentConfig:
    """The config a run was made with. Raises ConfigError where today's code knows it no longer."""
    from omegaconf import OmegaConf

    return check(cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(run.config))))


def answerer(run: RunFolder) -> Answerer:
    """The trained model of a run, ready to be asked. Raises InputError where there is none yet."""
    config = recorded_config(run)
    if not run.model.is_dir():
        raise InputError(f"{run.name}: no trained model there yet; run its command again to finish it")
    engine = registry.create(config.backend, config.hardware, cache_folder())
    reader = Reader.of(run.model, config.format)
    return Answerer(engine, engine.load(run.model, None), reader, config.generation, config.seed)


def source_digest() -> str:
    """SHA-256 over the package's own source: recorded, so that a result made by other code can be told."""
    package = Path(__file__).parent
    files = sorted(package.rglob("*.py"))
    return sha256_bytes("".join(f"{file.relative_to(package)} {sha256_file(file)}\n" for file in files).encode())


def _warn_of_other_code(folder: RunFolder) -> None:
    recorded = dict(read_json(folder.environment)).get("source_sha256")
    if recorded != source_digest():
        warn(f"{folder.name} was made by other code than today's; run.new=true runs it again")
