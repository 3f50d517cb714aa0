"""What a run folder says, as plain data for any store: identity, facts, results, the table of predictions.

Reads files and knows no tracker; secrets are masked here.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.config.outdated import tracking_of_today
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, digest, read_appended, read_json, read_record, to_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.origin import begun_from
from tunix_rt.runs.scores import scores
from tunix_rt.runs.secrets import URI_VARIABLE, is_masked, mask, mask_values
from tunix_rt.runs.sweep import MEMBERSHIP
from tunix_rt.traces.prediction import renamed
from tunix_rt.tracking.state import FIRST, Folder, sent_as
from tunix_rt.tracking.store import DataSplit, Facts, Table
from tunix_rt.tracking.tail import Point

MAX_KEY = 250
"""Longest name, in characters, that every tracker accepts."""
MAX_NOTE = 5000
CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}
RECORDS = ("config.yaml", "stages.json", "environment.json", "report.md", "report.html")
PREDICTIONS, DIFF = "predictions.json", "git.diff"
TABLE_HEAD = ("prompt", "completion", "answer", "reference", "correct", "reason")
TABLE_TAIL = ("finish_reason", "error", "steps", "num_prompt_tokens", "num_new_tokens", "id", "sample")
ELSEWHERE = ("extracted", "logprobs", "token_ends", "step_checks", "slices")
"""What a row has of a prediction that is no column: the extracted answer is the column `answer`."""


def read_config(run: RunFolder) -> JsonObject:
    """The resolved config as plain data (floats as OmegaConf reads them). Raises DataError."""
    if not run.config.exists():
        raise DataError(f"{run.path}: not a run folder (no config.yaml)")
    return run.read_config()


def read_tracking(folder: Folder, uri: str | None = None) -> TrackingConfig:
    """The section `tracking` of a run or sweep, with `uri` replaced if one is given.

    A URI whose password is masked in the record comes from the variable `URI_VARIABLE`. Raises DataError.
    """
    file = folder.config if isinstance(folder, RunFolder) else folder.path / MEMBERSHIP
    record = read_config(folder) if isinstance(folder, RunFolder) else folder.status()
    try:
        tracking = TrackingConfig(**tracking_of_today(record["tracking"]))
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: tracking: not the section that this version writes ({error})") from None
    if uri is None and is_masked(tracking.uri):
        uri = os.environ.get(URI_VARIABLE)
        if uri is None:
            raise DataError(f"{file}: tracking.uri: the password is masked; give the whole URI in {URI_VARIABLE}")
    return tracking if uri is None else replace(tracking, uri=uri)


def parameters(config: JsonObject) -> dict[str, str]:
    """`{"training.max_steps": "1600", …}`, secrets masked; values of any length."""
    leaves = ((key[:MAX_KEY], value) for key, value in _leaves(mask_values(config), ""))
    return {key: value if isinstance(value, str) else to_json(value) for key, value in leaves}


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        yield key, value
        return
    for name, item in value.items():
        yield from _leaves(item, f"{key}.{name}" if key else str(name))


def run_name(run: RunFolder) -> str:
    """`<experiment>-<identity>`, shortened; a second run of an identity has its number appended."""
    experiment, identity = run.path.parent.name, run.identity
    if identity != run.path.name:
        experiment = str(read_config(run).get("name", experiment))
    number = identity.partition("-")[2]
    return "-".join(part for part in (experiment, identity[:8], number) if part)


def identity_tags(run: RunFolder, key: str) -> dict[str, str]:
    """What distinguishes this run from all others. One made by several commands has its key in `status.json`."""
    return {
        "user": psutil.Process().username(),
        "tunix_rt.identity": run.identity,
        "tunix_rt.key": str(run.status().get("key") or key),
        "tunix_rt.run_folder": str(run.path),
        "tunix_rt.host": platform.node(),
    }


def facts(run: RunFolder, ended: bool, kind: str = FIRST) -> Facts:
    """Everything declared and recorded so far; the description only once it has `ended`. Raises DataError.

    `kind`: the store whose ids and pages name other runs.
    """
    config = read_config(run)
    splits = data_splits(run) if run.data.exists() else []
    return Facts(parameters(config), recorded_tags(run, config, kind), splits, description(run, kind) if ended else "")


def recorded_tags(run: RunFolder, config: JsonObject, kind: str = FIRST) -> dict[str, str]:
    """Backend, commit, versions and command, as far as they are recorded yet."""
    environment = read_record(run.environment)
    git = environment.get("git") or {}
    tags = {
        "tunix_rt.experiment": str(config.get("name", run.path.parent.name)),
        "tunix_rt.backend": str((config.get("backend") or {}).get("name", "unknown")),
        "command": str(environment.get("command", "")),
        "commit": str(git.get("commit", "")),
        "tunix_rt.git.dirty": to_json(git["dirty"]) if "dirty" in git else "",
    }
    tags |= _lineage(run, kind)
    versions = {f"version.{name}": str(version) for name, version in environment.get("packages", {}).items()}
    return {key: mask(value) for key, value in (tags | versions).items() if value}


def _lineage(run: RunFolder, kind: str) -> dict[str, str]:
    """The run whose model it begins from, by its name here and its id in the store, as far as it was sent there."""
    earlier = begun_from(run)
    if earlier is None:
        return {}
    return {"tunix_rt.begins_from": earlier.name, "tunix_rt.begins_from.run_id": sent_as(earlier.path, kind)[0]}


def records(run: RunFolder) -> dict[str, Path]:
    """The files that are sent unchanged, by name; each is in the folder of the stage that wrote it."""
    files = {name: run.path / name for name in RECORDS}
    files |= {file.name: file for file in (run.data, run.metrics, run.baseline_metrics)}
    files |= {f"figures/{file.name}": file for file in sorted(run.path.glob("figures/*.png"))}
    return {name: file for name, file in files.items() if file.exists()}


def git_diff(run: RunFolder) -> str:
    """The diff against the commit when the run began; empty if there was none."""
    return str((read_record(run.environment).get("git") or {}).get("diff", ""))


def description(run: RunFolder, kind: str = FIRST) -> str:
    """Markdown for the top of a run's page: how the run ended, and the report without its title and its pictures."""
    status = run.status()
    reason = f": {status['reason']}" if status.get("reason") else ""
    report = run.report.read_text("utf-8") if run.report.exists() else ""
    text = re.sub(r"\A# .*\n+|!\[[^\]]*\]\([^)]*\)\n*", "", report)
    text = re.sub(r"\[(`[^`]+`)\]\(\.\./[^)]*\)", partial(_linked, run, kind), text)
    return mask(f"**{status.get('state', 'unknown')}**{reason}\n\n{text}".strip())[:MAX_NOTE]


def _linked(run: RunFolder, kind: str, found: re.Match[str]) -> str:
    """A link to the report of the run that it begins from, as one to that run's page, if the tracker has pages."""
    earlier = begun_from(run)
    page = "" if earlier is None else sent_as(earlier.path, kind)[1]
    return f"[{found[1]}]({page})" if page.startswith("http") else found[1]


def data_splits(run: RunFolder) -> list[DataSplit]:
    """The splits that the manifest in `data.json` lists with their sha256."""
    manifest = read_json(run.data)
    name = str(manifest.get("name", run.path.parent.name))
    folder = str(run.data_folder if "folder" in manifest else run.path)
    return [
        DataSplit(f"{name}/{split}", CONTEXTS.get(split, split), str(record["sha256"]), folder, dict(record))
        for split, record in manifest.get("splits", {}).items()
        if record.get("sha256")
    ]


def results(run: RunFolder) -> list[Point]:
    """The scores of the run, and of the model it started from. `metrics.json`, an artifact, has all other numbers."""
    return _scores(run.metrics, "score") + _scores(run.baseline_metrics, "score_before_training")


def _scores(file: Path, section: str) -> list[Point]:
    """Their time is the file's, so that sending again sends identical points."""
    if not file.exists():
        return []
    time = file.stat().st_mtime_ns // 1_000_000
    found = scores(read_json(file)).items()
    return [Point(f"{section}/{name}"[:MAX_KEY], 0, time, value) for name, value in found]


def answers(run: RunFolder) -> list[JsonObject]:
    """Each prediction with its verdict (the fields of `items.jsonl`), in the order of the file."""
    verdicts = {(item["id"], item["sample"]): renamed(item) for _, item in read_appended(run.items)}
    return [verdicts.get((line["id"], line["sample"]), {}) | line for _, line in read_appended(run.predictions)]


def predictions(run: RunFolder, examples: int) -> Table | None:
    """The table of the run's predictions; None if there are none."""
    rows = answers(run)
    return table(rows, examples, run.predictions.stat().st_mtime_ns // 1_000_000) if rows else None


def table(rows: list[JsonObject], examples: int, time: int) -> Table:
    """The predictions (`answers`), wrong ones first, `examples` of them in full; created at `time`.

    A tracker shows a table page by page, without sorting it.
    """
    ordered = sorted(rows, key=lambda row: row.get("correct") is True)
    shown = [
        row
        | {"answer": row.get("extracted", row.get("answer"))}
        | {"first_wrong_step": (row.get("step_checks") or {}).get("first_wrong")}
        for row in ordered
    ]
    own = (*TABLE_HEAD, *TABLE_TAIL, *ELSEWHERE)
    verdict = list(dict.fromkeys(key for row in shown for key in row if key not in own))
    columns = [*TABLE_HEAD, *verdict, *TABLE_TAIL]
    values = [[row.get(column) for column in columns] for row in shown]
    cells = [["\n".join(map(str, value)) if isinstance(value, list) else value for value in row] for row in values]
    return Table(PREDICTIONS, columns, cells, sample(rows, examples), time)


def sample(rows: list[JsonObject], number: int) -> list[JsonObject]:
    """`number` of the rows, chosen by hash of their ids: always the same ones, independent of the order of the file."""
    chosen = sorted(range(len(rows)), key=lambda index: digest([rows[index]["id"], rows[index]["sample"]]))[:number]
    return [rows[index] for index in sorted(chosen)]
