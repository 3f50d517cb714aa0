"""Verifies a record, as a folder or zip file: hashes, splits, identities, and the predictions scored again.

This shows that the files belong together and that the numbers follow from the predictions. It does not detect that all
of them were rewritten consistently: for that, `reproduce` runs it again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tunix_rt.checked import damage
from tunix_rt.config.choices import SPLITS
from tunix_rt.config.identity import STAGES, declared, identities
from tunix_rt.config.load import earlier_of
from tunix_rt.config.model import RunModel
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.engine.outputs import problem_of
from tunix_rt.errors import DataError, GateError, ModelError
from tunix_rt.evaluation.faithfulness import of_interventions
from tunix_rt.evaluation.score import SCHEMA_VERSION, score
from tunix_rt.experiment import recorded_config
from tunix_rt.files import JsonObject, is_torn, read_appended, read_json, read_jsonl, sha256_file, to_json
from tunix_rt.inference.trained import trained_model
from tunix_rt.models.content import digest_of, folder_digest
from tunix_rt.runs.archive import DATA, MODEL, Exported, export, unpack
from tunix_rt.runs.diff import first_in_values
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.origin import begun_from
from tunix_rt.runs.secrets import is_masked
from tunix_rt.traces.prediction import read_if_there, read_items, read_predictions
from tunix_rt.traces.prepared import PreparedData

MANIFEST = ("name", "seed", "counts", "splits", "digest")
"""Keys in which `data.json` must equal the manifest; sources may contain a masked secret."""


def export_run(run: RunFolder, target: Path | None, with_model: bool) -> Exported:
    """Write one zip file with all that is needed to verify a run.

    Raises InputError (not finished), ModelError, DataError, GateError (its model, data or results are damaged).
    """
    run.check_finished("result to export")
    if run.model.is_dir():
        trained_model(run)
    _outputs(run)
    prepared = PreparedData(run.data_folder)
    for line in prepared.damage() if prepared.is_whole else ():
        raise DataError(f"{line}; the run's command again prepares it")
    return export(run, prepared.folder, target or run.root / f"{run.name.replace('/', '-')}.zip", with_model)


def verify(what: Path | RunFolder) -> list[str]:
    """Verify a zip file of `export`, or a run folder in place; returns what was correct, one line each.

    Raises GateError: the first thing that is wrong; DataError: no such file, or one that is not safe to open.
    """
    if isinstance(what, RunFolder):
        what.check_finished("result to verify")
        prepared = PreparedData(what.data_folder)
        model = folder_digest(what.model) if what.model.is_dir() else None
        return [_files(what, prepared), *_verified(what, prepared, model)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        listed = unpack(what, folder)
        files = {name[len(MODEL) :]: f["sha256"] for name, f in listed["files"].items() if name.startswith(MODEL)}
        checked = _verified(RunFolder(folder), PreparedData(folder / DATA), digest_of(files) if files else None)
        return [f"files: {len(listed['files'])}, each with the sha256 it was exported with", *checked]


def _files(run: RunFolder, prepared: PreparedData) -> str:
    """Check that every byte of the prepared data, of the trained model and of each stage's outputs is as written."""
    for line in prepared.damage(full=True):
        raise GateError(line)
    _outputs(run, full=True)
    try:
        if run.model.is_dir():
            trained_model(run, full=True)
    except ModelError as error:
        raise GateError(str(error)) from error
    return "files: prepared data, model and results, each with the sha256 it was written with"


def _outputs(run: RunFolder, full: bool = False) -> None:
    """Check what each stage wrote besides the model; `_training` reads a log that a crash tore as far as it goes."""
    elsewhere = ("model", run.metrics_log.name) if is_torn(run.metrics_log) else ("model",)
    for stage in run.stages():
        if problem := problem_of(run, stage, full, elsewhere):
            raise GateError(f"{problem} ({stage} wrote it; the command of {run.name} does it again)")


def _verified(run: RunFolder, prepared: PreparedData, model: str | None) -> list[str]:
    try:
        config = recorded_config(run)
        return [
            _splits(run, prepared),
            _identities(run, config),
            *_origin(run, config),
            _training(run, model),
            *_rollouts(run),
            _predictions(run, config, prepared),
            _scores(run, config, prepared),
        ]
    except DataError as error:
        raise GateError(str(error)) from error


def _splits(run: RunFolder, prepared: PreparedData) -> str:
    """Check that the traces are those of the manifest, and the manifest is the one that the run used."""
    manifest = prepared.manifest
    recorded = read_json(run.data)
    for key in MANIFEST:
        _refuse(first_in_values(f"data.json {key}", recorded[key], manifest[key]))
    for split in SPLITS:
        file, record = prepared.traces_file(split), manifest["splits"][split]
        if sha256_file(file) != record["sha256"]:
            raise GateError(f"traces/{split}.jsonl: not the split of the manifest (sha256 differs)")
        count = sum(1 for _ in read_jsonl(file))
        if count != record["count"]:
            raise GateError(f"traces/{split}.jsonl: {count} traces, the manifest says {record['count']}")
    hashes = run.data_hashes().get("prepared", {})
    for name, sha256 in hashes.items():
        file = prepared.folder / name
        if file.is_file() and sha256_file(file) != sha256:
            raise GateError(f"{name}: not the prepared data that the record names (sha256 differs)")
    sizes = ", ".join(f"{split} {manifest['splits'][split]['count']}" for split in SPLITS)
    return f"splits: {sizes} traces, as in the manifest"


def _identities(run: RunFolder, config: ExperimentConfig) -> str:
    """Check that each stage was done for this config and this data."""
    hashes = run.data_hashes()
    if not hashes or is_masked([declared(config, stage) for stage in STAGES]):
        return "identities: not checked (no data hashes are recorded, or a secret is masked in the config)"
    if "seed" not in run.read_config()["dataset"]:
        return "identities: not checked (made by version 0.1, whose identities were others)"
    if "scorers" not in run.read_config()["evaluation"]:
        return "identities: not checked (made before there were scorers, so its identity of `evaluate` was another)"
    stages = run.stages()
    trained = stages.get("train", {})
    # If accuracy decides, training elsewhere followed the rules of its own config, not those that score it here.
    kept = {"train": trained["identity"]} if config.training.accuracy_decides and "folder" in trained else {}
    for stage, identity in identities(config, hashes["sources"], kept).items():
        recorded = stages.get(stage, {}).get("identity")
        if recorded != identity:
            raise GateError(f"stages.json {stage}: made for {recorded}, but config and data give {identity}")
    return f"identities: config and data give those of all {len(STAGES)} stages"


def _origin(run: RunFolder, config: ExperimentConfig) -> list[str]:
    """Check that the run it begins from, if it is here, was trained as declared."""
    earlier, source = begun_from(run), config.model.source
    if earlier is None or not isinstance(source, RunModel):
        return []
    trained = earlier.stages().get("train", {}).get("identity")
    if trained is None:
        return [f"begins from: the model of {source.experiment}, whose run is not here"]
    declared_, stated = earlier_of(config, source), run.data_hashes()["sources"]["model.source"]
    made = identities(declared_, earlier.data_hashes().get("sources", {}))["train"]
    for found in (trained, made):
        if found != stated:
            raise GateError(f"data.json model.source: begins from {stated}, but {earlier.name} was trained as {found}")
    return [f"begins from: the model of {earlier.name}, trained as declared"]


def _training(run: RunFolder, model: str | None) -> str:
    record = run.stages()["train"]
    if record["steps_done"] == 0:
        if model is not None and model != record["model_digest"]:
            raise GateError("model: does not stand for the model that was asked (its digest in stages.json differs)")
        return "training: none, the model was asked as it is"
    steps = [int(line["step"]) for _, line in read_appended(run.metrics_log) if "train/loss" in line]
    ends = steps[-1:] == [int(record["steps_done"])] or is_torn(run.metrics_log)
    if steps != sorted(set(steps)) or not ends:
        raise GateError(f"metrics.jsonl: its steps do not end with step {record['steps_done']}, as stages.json says")
    if model is None or "model_digest" not in record:
        return f"training: {len(steps)} steps; model not in it"
    if model != record["model_digest"]:
        raise GateError("model: not the one that was trained (its digest in stages.json differs)")
    return f"training: {len(steps)} steps, and the model they gave"


def _rollouts(run: RunFolder) -> list[str]:
    """Check that the model's own answers that it learned from are the ones that training wrote, if it did."""
    outputs = run.stages()["train"].get("outputs", {})
    written = {name: sealed for name, sealed in outputs.items() if fnmatch(name, "rollouts/*.jsonl")}
    there = {f"rollouts/{file.name}" for file in run.rollouts.glob("*.jsonl")} if written else set()
    for name in sorted(there - written.keys()):
        raise GateError(f"{name}: not written by the training, whose files are in stages.json")
    for line in damage(run.rollouts.parent, written, full=True):
        raise GateError(line.removeprefix(f"{run.rollouts.parent}/"))
    files = "1 file" if len(written) == 1 else f"{len(written)} files"
    return [f"rollouts: {files}, as the training wrote them"] if written else []


def _predictions(run: RunFolder, config: ExperimentConfig, prepared: PreparedData) -> str:
    """Check that there is one line for each trace of the split and sample, and no others."""
    split, samples = config.generation.split, config.generation.num_return_sequences
    wanted = {(trace.id, sample) for trace in prepared.traces(split) for sample in range(samples)}
    baseline = [run.baseline_predictions] if run.baseline_predictions.exists() else []
    for file in (run.predictions, *baseline):
        found = [(prediction.id, prediction.sample) for prediction in read_predictions(file)]
        for identity, sample in sorted(wanted ^ set(found)):
            what = "no prediction of" if (identity, sample) in wanted else "a prediction of no trace:"
            raise GateError(f"{file.name}: {what} id {identity} sample {sample} of the {split} split")
        if len(found) != len(wanted):
            raise GateError(f"{file.name}: {len(found)} lines for {len(wanted)} answers")
    return f"predictions: {len(wanted)}, one for each trace of the {split} split and sample"


def _scores(run: RunFolder, config: ExperimentConfig, prepared: PreparedData) -> str:
    """Check that the recorded evaluation of the predictions gives the recorded numbers."""
    traces = {trace.id: trace for trace in prepared.traces(config.generation.split)}
    predictions, greedy = list(read_predictions(run.predictions)), read_if_there(run.greedy_predictions)
    again = score(predictions, traces, config.evaluation, greedy)
    items = [*read_items(run.items)]
    if len(items) != len(again.items):
        raise GateError(f"items.jsonl: {len(items)} lines, the predictions give {len(again.items)}")
    if read_json(run.metrics).get("schema_version", 1) < SCHEMA_VERSION:
        return _earlier_verdicts(items, again.items, config)
    for recorded, now in zip(items, _as_json(again.items), strict=True):
        _refuse(first_in_values(f"items.jsonl id {recorded.get('id')}", recorded, now))
    changed = of_interventions(run.interventions, predictions, traces, config.evaluation)
    _refuse(first_in_values("metrics.json", read_json(run.metrics), _as_json(again.metrics | changed)))
    if run.baseline_predictions.exists():
        baseline = score(list(read_predictions(run.baseline_predictions)), traces, config.evaluation)
        _refuse(first_in_values("baseline_metrics.json", read_json(run.baseline_metrics), _as_json(baseline.metrics)))
        if run.baseline_items.exists():  # older runs have none
            for recorded, now in zip(read_items(run.baseline_items), _as_json(baseline.items), strict=False):
                _refuse(first_in_values(f"baseline_items.jsonl id {now['id']}", recorded, now))
    accuracy = again.metrics["accuracy"]
    return f"scores: the same from the predictions again (accuracy {accuracy['k']} of {accuracy['n']})"


def _earlier_verdicts(recorded: Sequence[JsonObject], now: Sequence[JsonObject], config: ExperimentConfig) -> str:
    """Compare verdicts alone: the records of an earlier version have other keys. `exact` judges as it did."""
    differing = [item["id"] for item, other in zip(recorded, now, strict=True) if item["correct"] != other["correct"]]
    if differing and config.evaluation.decisive.kind == "exact":
        raise GateError(f"items.jsonl id {differing[0]}: another verdict than the predictions give")
    same = len(now) - len(differing)
    return f"scores: by the rules of an earlier version; {same} of {len(now)} verdicts are those of today's"


def _as_json(value: object) -> Any:
    return json.loads(to_json(value))


def _refuse(difference: str | None) -> None:
    if difference is not None:
        raise GateError(difference.replace(" there, ", " recorded, ").replace(" here", " computed again"))
