"""Compares two records: every value that differs, and the first place where two result files differ.

Reads run folders; knows JSON, JSONL and safetensors, but not what a metric means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tunix_rt.files import JsonObject, is_torn, read_appended, read_json, read_record, sha256_file
from tunix_rt.runs.folder import RunFolder

ABSENT = "(absent)"
CODE = ("git.commit", "git.diff_sha256", "git.untracked", "lock_sha256", "source_sha256", "python", "packages")
"""Keys of `environment.json` that describe code; `machine`, `backend` and `variables` say where it ran."""
FACTS = ("num_steps", "steps_done", "tokens", "selected_step", "ended_early", "row_length", "num_epochs")


@dataclass(frozen=True, slots=True)
class Section:
    """One section of two records: how many values are equal, and those that differ as (left, right)."""

    name: str
    equal: int
    different: dict[str, tuple[Any, Any]]


def leaves(value: Any) -> dict[str, Any]:
    """`{"training.max_steps": 1600, "digits.0": 2, …}`; an empty mapping or list is a leaf."""
    return {key: leaf for key, leaf, _ in _pairs(value, value, "")}


def compare(name: str, left: Any, right: Any) -> Section:
    """Compares two JSON values leaf by leaf, in their order; a part that only one of them has counts as one value."""
    equal, different = 0, {}
    for key, a, b in _pairs(left, right, ""):
        if type(a) is type(b) and a == b:
            equal += 1
        else:
            different[key] = (a, b)
    return Section(name, equal, different)


def _pairs(left: Any, right: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    a, b = _by_name(left), _by_name(right)
    if a is None or b is None or not (a or b):
        yield key, left, right
        return
    for name in dict.fromkeys([*a, *b]):
        yield from _pairs(a.get(name, ABSENT), b.get(name, ABSENT), f"{key}.{name}" if key else name)


def _by_name(value: Any) -> dict[str, Any] | None:
    if isinstance(value, list):
        return {str(place): item for place, item in enumerate(value)}
    return {str(name): item for name, item in value.items()} if isinstance(value, dict) else None


def side_by_side(left: RunFolder, right: RunFolder) -> list[Section]:
    """Compares config, data, code, environment and results of two runs. Raises DataError if a record is damaged."""
    environments = [read_record(run.environment) for run in (left, right)]
    return [
        compare("config", left.read_config(), right.read_config()),
        compare("data", _data(left), _data(right)),
        compare_code(*environments),
        compare_environments(*environments),
        compare("results", _results(left), _results(right)),
    ]


def compare_code(recorded: JsonObject, now: JsonObject) -> Section:
    """Compares the code in two `environment.json`."""
    return compare("code", _parts(recorded, CODE), _parts(now, CODE))


def compare_environments(recorded: JsonObject, now: JsonObject) -> Section:
    """Compares machine, backend and variables in two `environment.json`."""
    return compare("environment", _where(recorded), _where(now))


def _parts(record: JsonObject, keys: tuple[str, ...]) -> JsonObject:
    return {key: value for key in keys if (value := value_at(record, key)) is not None}


def value_at(record: Any, key: str) -> Any:
    """The value at a dotted key; None if there is none."""
    for name in key.split("."):
        record = record.get(name) if isinstance(record, dict) else None
    return record


def _where(record: JsonObject) -> JsonObject:
    """Leaves out MLflow's variables: they change no number, and importing it sets some of them."""
    variables = {key: value for key, value in record.get("variables", {}).items() if not key.startswith("MLFLOW_")}
    return _parts(record, ("machine", "backend")) | {"variables": variables}


def _data(run: RunFolder) -> JsonObject:
    hashes = _parts(run.data_hashes(), ("sources", "start_model"))
    return _parts(read_record(run.data), ("name", "seed", "counts", "splits", "digest")) | hashes


def _results(run: RunFolder) -> JsonObject:
    record = run.stages().get("train", {})
    found: JsonObject = {"training": {name: record[name] for name in FACTS if name in record}}
    for name, file in result_files(run).items():
        if name in ("metrics.json", "baseline_metrics.json"):
            found[name.removesuffix(".json")] = read_json(file)
        else:
            found[f"sha256 of {name}"] = sha256_file(file)[:16]
    return found


def result_files(run: RunFolder) -> dict[str, Path]:
    """The files that a run computed, in the order of the data flow, including those of stages that a sibling did."""
    model = {f"model/{file.name}": file for file in sorted(run.model.glob("*")) if file.is_file()}
    files = {
        **{f"rollouts/{file.name}": file for file in sorted(run.rollouts.glob("step_*.jsonl"))},
        "metrics.jsonl": run.metrics_log,
        **model,
        "baseline_predictions.jsonl": run.baseline_predictions,
        "predictions.jsonl": run.predictions,
        "greedy_predictions.jsonl": run.greedy_predictions,
        "interventions.jsonl": run.interventions,
        "items.jsonl": run.items,
        "baseline_metrics.json": run.baseline_metrics,
        "metrics.json": run.metrics,
    }
    return {name: file for name, file in files.items() if file.exists()}


def first_difference(name: str, there: Path, here: Path) -> str | None:
    """The first place at which two files differ, in words; None if their bytes are the same."""
    if there.exists() != here.exists():
        return f"{name}: {'missing here' if there.exists() else 'only here'}"
    if not there.exists() or sha256_file(there) == sha256_file(here):
        return None
    found: str | None = None
    if name.endswith(".jsonl"):
        found = _in_lines(name, there, here)
        if found is None and is_torn(there):
            return None
    elif name.endswith(".json"):
        found = first_in_values(name, read_json(there), read_json(here))
    elif name.endswith(".safetensors"):
        found = _in_tensors(name, there, here)
    return found or f"{name}: the bytes differ"


def _in_lines(name: str, there: Path, here: Path) -> str | None:
    lefts, rights = list(read_appended(there)), list(read_appended(here))
    if is_torn(there):  # what a crash tore off is unknown, which is no difference
        rights = [line for line in rights if _key(line[1]) in {_key(known) for _, known in lefts}]
    for left, right in zip_longest(lefts, rights):
        if left is None or right is None:
            number, record = left or right
            side = "missing here" if right is None else "only here"
            return f"{name} line {number} ({_place(record, number)}): {side}"
        found = first_in_values(f"{name} {_place(left[1], left[0])}", left[1], right[1])
        if found:
            return found
    return None


def _key(record: JsonObject) -> tuple[object, ...]:
    """Identifies a line in its file."""
    return record.get("step"), record.get("id"), record.get("sample"), *sorted(record)


def _place(record: JsonObject, number: int) -> str:
    if "step" in record:
        return f"step {record['step']}"
    if "id" in record:
        return f"id {record['id']}" + (f" sample {record['sample']}" if record.get("sample") else "")
    return f"line {number}"


def first_in_values(where: str, there: Any, here: Any) -> str | None:
    """The first leaf at which two JSON values differ, in words."""
    for key, (left, right) in compare(where, there, here).different.items():
        return f"{where} {key}: {left!r} there, {right!r} here"
    return None


def _in_tensors(name: str, there: Path, here: Path) -> str | None:
    import ml_dtypes  # noqa: F401  (gives numpy the dtype bfloat16, which safetensors then returns)
    import numpy as np
    from safetensors import safe_open

    with safe_open(there, framework="numpy") as left, safe_open(here, framework="numpy") as right:
        if set(left.keys()) != set(right.keys()):
            return f"{name}: tensors {sorted(set(left.keys()) ^ set(right.keys()))} are only in one of them"
        for tensor in sorted(left.keys()):
            a, b = left.get_tensor(tensor), right.get_tensor(tensor)
            if a.shape != b.shape or a.dtype != b.dtype:
                return f"{name} {tensor}: {a.dtype}{list(a.shape)} there, {b.dtype}{list(b.shape)} here"
            places = np.argwhere(a != b)
            if len(places):
                place = tuple(int(index) for index in places[0])
                return f"{name} {tensor} {list(place)}: {a[place]!s} there, {b[place]!s} here"
    return None
