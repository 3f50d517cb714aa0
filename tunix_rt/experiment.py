"""An experiment from beginning to end, in one run folder: the engine's stages in order, then the results.

Only this module, the engine, and the modules above them see the complete config.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.backends import registry
from tunix_rt.batches.reader import Reader
from tunix_rt.config.change import of_today
from tunix_rt.config.execution import TrackingConfig
from tunix_rt.config.identity import plain
from tunix_rt.config.load import check
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.engine.context import RunContext, chain_of
from tunix_rt.engine.engine import do, session
from tunix_rt.engine.outputs import is_finished, problem_of
from tunix_rt.engine.stages import STAGES
from tunix_rt.errors import DataError, InputError
from tunix_rt.files import JsonObject, copy_file, read_json, write_json
from tunix_rt.inference.answer import Answerer
from tunix_rt.inference.batches import plan_file
from tunix_rt.inference.trained import trained_model
from tunix_rt.inputs import check_family, checked_digests, prepared_of, source_digest
from tunix_rt.machine import cache_folder
from tunix_rt.models.folder import is_adapter
from tunix_rt.models.sources import opened
from tunix_rt.report.summary import summary
from tunix_rt.runs.diff import leaves
from tunix_rt.runs.folder import RunFolder, choose
from tunix_rt.runs.interrupt import watching
from tunix_rt.runs.sweep import MEMBERSHIP
from tunix_rt.terminal import say, table, warn
from tunix_rt.traces.prediction import Prediction, read_predictions
from tunix_rt.tracking.registry import ModelStore
from tunix_rt.tracking.store import ui_command


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run."""

    folder: Path
    metrics: JsonObject
    """`metrics.json`; see docs/metrics.md."""
    baseline_metrics: JsonObject | None
    """The same for the model at the start of training, if `generation.baseline` is true."""

    @property
    def predictions(self) -> list[Prediction]:
        """Every prediction, in order of the test split and sample."""
        return list(read_predictions(RunFolder(self.folder).predictions))


def run(
    config: ExperimentConfig,
    base: RunFolder | None = None,
    keep: Sequence[str] = (),
    sweep: Path | None = None,
    batches_of: RunFolder | None = None,
) -> Result:
    """Run the unfinished stages of the experiment, and return its result. `sweep`: the sweep that it is a member of.

    `keep`: stages that are not run again, whatever the config says: those of the run `base` count. `batches_of`: a run
    whose batches of prompts are used again for this one. Raises the errors of `tunix_rt.errors`; whatever happens, the
    run folder says how it ended.
    """
    registry.require(config.backend.name)
    store = ModelStore(config.tracking.uri)
    check_family(config, store)
    kept = {} if base is None else {stage: _finished(base, stage) for stage in ("prepare", *keep)}
    digests = checked_digests(config, store) if base is None else dict(base.data_hashes().get("sources", {}))
    chain = chain_of(config, digests, kept)
    folder = choose(Path(config.run.root), config.name, chain["evaluate"], config.run.new)
    with folder.locked(patient=True):
        if is_finished(folder, chain) and _has_records(folder, config):
            say(f"{folder.name}: finished before; nothing is run again (run.new=true starts anew)")
            if dict(read_json(folder.environment)).get("source_sha256") != source_digest():
                warn(f"{folder.name} was made by other code than today's; run.new=true runs it again")
            return _result(folder)
        if sweep is not None:
            write_json(folder.path / MEMBERSHIP, {"folder": os.path.relpath(sweep, folder.path)})
        if batches_of is not None:
            for predictions in (batches_of.predictions, batches_of.baseline_predictions, batches_of.greedy_predictions):
                if plan_file(predictions).exists():
                    copy_file(plan_file(predictions), folder.path / plan_file(predictions).name)
        with watching(folder.path) as interrupt:
            context = RunContext(config, digests, chain, folder, interrupt, store, base)
            with session(context, STAGES):
                for stage in STAGES:
                    do(stage, context)
    return _result(folder)


def _has_records(run: RunFolder, config: ExperimentConfig) -> bool:
    """Whether what every session writes about itself is there and whole; otherwise a session writes it again."""
    try:
        recorded = run.read_config()
        read_json(run.environment)
    except DataError:
        return False
    return run.status_file.exists() and leaves(recorded).keys() == leaves(plain(config)).keys()


def _finished(run: RunFolder, stage: str) -> str:
    """The identity of a stage that a run has finished. Raises InputError if it has not."""
    record = run.stages().get(stage, {})
    if record.get("state") != "done":
        raise InputError(f"{run.name}: its stage {stage} is not finished; run its command again first")
    if problem := problem_of(run, stage):
        raise DataError(f"{problem}; bring the file back, or run the command of {run.name}, which does it again")
    return str(record["identity"])


def _result(folder: RunFolder) -> Result:
    baseline = dict(read_json(folder.baseline_metrics)) if folder.baseline_metrics.exists() else None
    return Result(folder.path, dict(read_json(folder.metrics)), baseline)


def show(run: RunFolder, tracking: TrackingConfig) -> None:
    """Print the table at the end of a run."""
    table(run.name, (), summary(run, ui_command(tracking)))


def recorded_config(run: RunFolder) -> ExperimentConfig:
    """The config a run was made with. Raises ConfigError if today's code no longer accepts it."""
    return check(recorded_mapping(run))


def recorded_mapping(run: RunFolder) -> JsonObject:
    """The same as plain data, unchecked: with the current folders of run and data, not the recorded ones."""
    mapping = of_today(run.read_config())
    places = {"root": str(run.root)}
    try:
        if run.data.exists() and run.data_folder.parent.name == mapping["dataset"]["name"]:
            places["data"] = str(run.data_folder.parent.parent)
        return mapping | {"run": mapping["run"] | places}
    except (KeyError, TypeError):
        raise DataError(f"{run.config}: not a whole config; the command of {run.name} writes it again") from None


def answerer(run: RunFolder) -> Answerer:
    """The trained model of a run, ready to answer prompts. Raises InputError if there is none yet."""
    config, trained = recorded_config(run), trained_model(run)
    backend = registry.create(config.backend, config.hardware, cache_folder())
    base = trained
    if is_adapter(trained):
        base = prepared_of(run, config, ModelStore(config.tracking.uri)).model_folder
    model, adapter = opened(trained, base)
    reader = Reader.of(model, config.format)
    return Answerer(backend, backend.load(model, None, adapter), reader, config.generation, config.generation.seed)
