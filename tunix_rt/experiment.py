"""An experiment from beginning to end, in one run folder: the engine's stages in order, then the results.

Only this module, the engine, and the modules above them see the complete config.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunix_rt.backends import registry
from tunix_rt.backends.placement import as_declared, on_one_device
from tunix_rt.batches.reader import Reader
from tunix_rt.config.change import of_today
from tunix_rt.config.execution import TrackingConfig
from tunix_rt.config.identity import plain
from tunix_rt.config.load import check, earlier_of
from tunix_rt.config.model import RunModel
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.engine.context import RunContext, chain_of
from tunix_rt.engine.engine import do, session
from tunix_rt.engine.outputs import is_finished, problem_of
from tunix_rt.engine.stages import STAGES
from tunix_rt.engine.turn import POLL
from tunix_rt.errors import DataError, InputError, InUse, ModelError
from tunix_rt.files import JsonObject, copy_file, read_json, write_json
from tunix_rt.inference.answer import Answerer
from tunix_rt.inference.batches import plan_file
from tunix_rt.inference.trained import trained_model
from tunix_rt.inputs import check_family, checked_digests, prepared_of, source_digest, teacher_of, trained_by
from tunix_rt.machine import cache_folder
from tunix_rt.models.folder import is_adapter
from tunix_rt.models.reference import is_reference
from tunix_rt.models.sources import to_load
from tunix_rt.precision import decided
from tunix_rt.report.summary import rate_line, summary
from tunix_rt.runs.diff import leaves
from tunix_rt.runs.folder import RunFolder, choose
from tunix_rt.runs.interrupt import watching
from tunix_rt.runs.sweep import MEMBERSHIP
from tunix_rt.terminal import say, table, warn
from tunix_rt.traces.ahead import check_traces
from tunix_rt.traces.prediction import Prediction, read_predictions
from tunix_rt.tracking.registry import ModelStore
from tunix_rt.tracking.state import sent_as
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
    config = decided(config)
    store = ModelStore(config.tracking.uri)
    check_family(config, store)
    kept = {} if base is None else {stage: _finished(base, stage) for stage in ("prepare", *keep)}
    digests = checked_digests(config, store) if base is None else dict(base.data_hashes().get("sources", {}))
    chain = chain_of(config, digests, kept)
    folder = choose(Path(config.run.root), config.name, chain["evaluate"], config.run.new)
    earlier = None
    if not _is_complete(folder, chain, config):
        registry.num_devices(config.backend, config.hardware)
        earlier = None if base is not None else earlier_run(config, folder)
    with folder.locked(patient=True):
        if _is_complete(folder, chain, config):
            say(f"{folder.name}: finished before; nothing is run again (run.new=true starts anew)")
            if dict(read_json(folder.environment)).get("source_sha256") != source_digest():
                warn(f"{folder.name} was made by other code than today's; run.new=true runs it again")
            return _result(folder)
        if sweep is not None:
            write_json(folder.path / MEMBERSHIP, {"folder": os.path.relpath(sweep, folder.path)})
        for plan in () if batches_of is None else map(plan_file, batches_of.answers):
            if plan.exists():
                copy_file(plan, folder.path / plan.name)
        for answers in _same_answers(config, digests, kept, base, folder):
            copy_file(answers, folder.path / answers.name)
        with watching(folder.path) as interrupt:
            context = RunContext(config, digests, chain, folder, interrupt, store, base, earlier=earlier)
            with session(context, STAGES):
                for stage in STAGES:
                    do(stage, context)
    return _result(folder)


def _same_answers(
    config: ExperimentConfig,
    digests: Mapping[str, str],
    kept: Mapping[str, str],
    base: RunFolder | None,
    folder: RunFolder,
) -> list[Path]:
    """The answers of `base`, if they are what `folder` will be asked before its steps are changed: those stay."""
    if base is None or config.generation.interventions is None or folder.predictions.exists():
        return []
    unchanged = replace(config, generation=replace(config.generation, interventions=None))
    if not base.is_done("predict", chain_of(unchanged, digests, kept)["predict"]) or problem_of(base, "predict"):
        return []
    return [file for path in base.answers for file in (plan_file(path), path) if file.exists()]


def earlier_run(config: ExperimentConfig, folder: RunFolder) -> RunFolder | None:
    """The run whose model the experiment begins from, with what of it is not finished done first, and of its teacher.

    It is an ordinary run, its answers and their score included: what a reader compares the later one with. `folder`:
    that of the later run. Raises what `run` raises.
    """
    if isinstance(teacher := teacher_of(config), RunModel):
        _first(config, teacher, folder, "learns from")
    source = config.model.source
    return _first(config, source, folder, "begins from") if isinstance(source, RunModel) else None


def _first(config: ExperimentConfig, source: RunModel, folder: RunFolder, does: str) -> RunFolder:
    """The run of an experiment that comes first; `does`: what the later one does with its model."""
    earlier = earlier_of(config, source)
    _check_data(config, source)
    say(f"{config.name} {does} the model of {earlier.name}, which comes first")
    result = _in_turn(earlier, folder)
    first = RunFolder(result.folder)
    say(f"{first.name}: accuracy {rate_line(result.metrics['accuracy'])}; {config.name} {does} its model")
    return first


def _check_data(config: ExperimentConfig, source: RunModel) -> None:
    """What is wrong with the data is said before the model that it is for is trained."""
    try:
        trained_by(config, source, ModelStore(config.tracking.uri))
    except ModelError:
        check_traces(config.dataset, config.format.reader, pairs=config.objective.data == "pairs")


def _in_turn(earlier: ExperimentConfig, folder: RunFolder) -> Result:
    """Its run; while another process works on it (a member of the same sweep, for example), wait for that one.

    `folder`: that of the run that waits. Raises Interrupted.
    """
    announced = False
    while True:
        try:
            return run(earlier)
        except InUse as error:
            if not announced:
                say(f"{earlier.name}: waiting: {error}")
        announced = True
        with watching(folder.path) as interrupt:
            time.sleep(POLL)
            interrupt.check("before its first stage")


def _is_complete(folder: RunFolder, chain: Mapping[str, str], config: ExperimentConfig) -> bool:
    return is_finished(folder, chain) and _has_records(folder, config)


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
    pages = [page for kind in tracking.stores if (page := sent_as(run.path, kind)[1])]
    table(run.name, (), summary(run, ui_command(tracking, run.path), pages))


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


def on_devices_here(config: ExperimentConfig, overrides: Sequence[str]) -> ExperimentConfig:
    """`config`, of a run whose model is asked again, on devices of this machine if those of the run are not here.

    Those that `overrides` name stay.
    """
    if any(word.lstrip("+").startswith("hardware") for word in overrides):
        return config
    hardware = registry.available(config.backend, config.hardware)
    if hardware != config.hardware:
        then, mesh = as_declared(config.hardware), config.hardware.mesh
        now = f"{as_declared(hardware)}, each with the whole model"
        say(f"the run's devices ({then}, mesh {mesh.data} x {mesh.shard} x {mesh.tensor}) are not here; used: {now}")
    return replace(config, hardware=hardware)


def answerer(run: RunFolder) -> Answerer:
    """The trained model of a run on one device, ready to answer prompts. Raises InputError if there is none yet."""
    config, trained = recorded_config(run), trained_model(run)
    hardware = registry.available(config.backend, on_one_device(config.hardware))
    backend = registry.create(config.backend, hardware, cache_folder())
    start = trained
    if is_adapter(trained) or is_reference(trained):
        start = prepared_of(run, config, ModelStore(config.tracking.uri)).model_folder
    model, adapter, quantize = to_load(trained, start)
    reader = Reader.of(model, config.format)
    state = backend.load(model, None, adapter, quantize)
    return Answerer(backend, state, reader, config.generation, config.generation.seed)
