"""One run in MLflow: the store opened, the run found or created, each thing put so that again is harmless.

In: plain data from `content` and `tail`. Everything that talks to MLflow is here and in `traces`. Whatever a
store may fail with becomes a StoreError, one line without passwords; the caller tries again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from tunix_rt.errors import MachineError
from tunix_rt.files import JsonObject, read_json, to_json
from tunix_rt.runs.secrets import mask
from tunix_rt.tracking.content import MAX_PARAM, DataSplit
from tunix_rt.tracking.tail import Point
from tunix_rt.tracking.traces import send_traces, whole_traces
from tunix_rt.tracking.uri import sqlite_file

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

Status = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]

TELEMETRY_OFF = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
DEFAULTS = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Set before mlflow is imported. Retrying is the follower's business, which goes on watching meanwhile."""

BIRTH = ("tunix_rt.identity", "tunix_rt.key")
"""The tags by which a run is known."""
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's pages for training; it would guess from the traces that this is an application."""
BATCH = 1000
PARAMS = 100
TABLE = "predictions.json"
TABLE_TAG = "mlflow.loggedArtifacts"
LONG_PARAMS = "long_params.json"
DIGEST = 16
"""Hex digits of a data set's hash that MLflow shows beside its name; the profile has all of them."""
SQLITE_MAGIC = b"SQLite format 3\0"
LOCK_SECONDS = 120.0


class StoreError(MachineError):
    """The store did not take something. The message names its URI and what it said."""


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn whatever a store fails with into StoreError."""
    _prepare_import()
    import requests
    from filelock import Timeout
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError, Timeout) as error:
        said = " ".join(mask(str(error)).split())[:500]
        raise StoreError(f"tracking.uri {mask(uri)}: not reachable or not willing: {said}") from error


def _prepare_import() -> None:
    os.environ.update(TELEMETRY_OFF)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def connect(uri: str) -> MlflowClient:
    """A client of the store. A SQLite file is made by one process while the others wait."""
    _prepare_import()
    from filelock import FileLock
    from mlflow.tracking import MlflowClient

    file = sqlite_file(uri)
    if file is None:
        return MlflowClient(tracking_uri=uri)
    if file.exists() and not _is_sqlite(file):
        raise StoreError(f"tracking.uri {uri}: {file}: not a SQLite file; move it away, or name another one")
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock", timeout=LOCK_SECONDS):
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
        return client


def _is_sqlite(file: Path) -> bool:
    """Whether it is, or is still empty. (https://www.sqlite.org/fileformat.html, section 1.3)"""
    with file.open("rb") as content:
        return content.read(len(SQLITE_MAGIC)) in (SQLITE_MAGIC, b"")


class MlflowRun:
    """One run in the store. Every verb may be called again with the same values and changes nothing then."""

    def __init__(self, client: MlflowClient, uri: str, experiment: str, run_id: str) -> None:
        self._client, self.uri, self._experiment, self.run_id = client, uri, experiment, run_id

    @classmethod
    def find_or_create(
        cls, uri: str, experiment: str, tags: dict[str, str], known: str | None, started: int
    ) -> MlflowRun:
        """The run that is `known` by id or has the same birth tags (`content.birth_tags`), else a new one.

        `started`: Unix milliseconds.
        """
        client = connect(uri)
        place = _experiment_id(client, uri, experiment)
        run = _known(client, known, tags) or _tagged(client, place, tags)
        if run is None:
            run = client.create_run(place, start_time=started, tags=tags)
        return cls(client, uri, run.info.experiment_id, run.info.run_id)

    def log_points(self, points: Sequence[Point]) -> None:
        """Add metric values; the same key, step, time and value is stored once."""
        from mlflow.entities import Metric

        for start in range(0, len(points), BATCH):
            batch = points[start : start + BATCH]
            self._client.log_batch(self.run_id, metrics=[Metric(p.key, p.value, p.time, p.step) for p in batch])

    def log_parameters(self, parameters: dict[str, str]) -> list[str]:
        """Add parameters; returns those that the store has with another value, which MLflow never changes.

        Long values are cut, and all of them are whole in the artifact `long_params.json`.
        """
        from mlflow.entities import Param

        present = self._client.get_run(self.run_id).data.params
        long = {key: value for key, value in parameters.items() if len(value) > MAX_PARAM}
        short = {key: value if key not in long else value[: MAX_PARAM - 1] + "…" for key, value in parameters.items()}
        if long:
            self._client.log_dict(self.run_id, long, LONG_PARAMS)
        missing = [Param(key, value) for key, value in short.items() if key not in present]
        for start in range(0, len(missing), PARAMS):
            self._client.log_batch(self.run_id, params=missing[start : start + PARAMS])
        return [key for key, value in short.items() if present.get(key, value) != value]

    def set_tags(self, tags: dict[str, str]) -> None:
        """Set tags, at most 100 of them."""
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_file(self, file: Path, name: str) -> None:
        """Put a file's contents at the path `name` among the artifacts."""
        folder = str(PurePosixPath(name).parent)
        self._client.log_artifact(self.run_id, str(file), None if folder == "." else folder)

    def log_text(self, text: str, name: str) -> None:
        """Put text at the path `name` among the artifacts."""
        self._client.log_text(self.run_id, text, name)

    def log_folder(self, folder: Path, name: str) -> None:
        """Put a folder's files below the path `name` among the artifacts."""
        self._client.log_artifacts(self.run_id, str(folder), name)

    def log_table(self, table: JsonObject) -> None:
        """Put a table where MLflow shows it as one. Its own `log_table` would append to what is there."""
        self.log_text(to_json(table), TABLE)
        self.set_tags({TABLE_TAG: json.dumps([{"path": TABLE, "type": "table"}])})

    def log_datasets(self, splits: Sequence[DataSplit]) -> None:
        """Name the data the run used, with its hash."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        inputs = [
            DatasetInput(
                Dataset(
                    name=split.name,
                    digest=split.sha256[:DIGEST],
                    source_type="local",
                    source=json.dumps({"uri": split.source}),
                    profile=json.dumps(split.profile),
                ),
                [InputTag(MLFLOW_DATASET_CONTEXT, split.context)],
            )
            for split in splits
        ]
        self._client.log_inputs(self.run_id, inputs)

    def log_traces(self, rows: list[JsonObject], time: int) -> None:
        """Make the run's traces those of `rows` (`content.answers`), at `time` (Unix milliseconds)."""
        send_traces(self._client, self.uri, self._experiment, self.run_id, rows, time)

    def count_traces(self, rows: list[JsonObject]) -> int:
        """How many of them are in the store, with all of their spans."""
        return len(whole_traces(self._client, self._experiment, self.run_id, rows))

    def set_status(self, status: Status, ended: int | None) -> None:
        """RUNNING again after KILLED is allowed. `ended`: Unix milliseconds."""
        if status in ("RUNNING", "SCHEDULED"):
            self._client.update_run(self.run_id, status)
        else:
            self._client.set_terminated(self.run_id, status, ended)

    def stored_points(self, keys: Iterable[str]) -> set[Point]:
        """Every value in the store of these metrics."""
        return {
            Point(metric.key, metric.step, metric.timestamp, metric.value)
            for key in keys
            for metric in self._client.get_metric_history(self.run_id, key)
        }

    def stored_counts(self, parameters: Iterable[str]) -> dict[str, int]:
        """How many of these parameters, and how many data sets and table rows the store has."""
        run = self._client.get_run(self.run_id)
        rows = 0
        if TABLE in self.stored_files():
            with tempfile.TemporaryDirectory() as folder:
                rows = len(read_json(Path(self._client.download_artifacts(self.run_id, TABLE, folder)))["data"])
        inputs = run.inputs.dataset_inputs if run.inputs else []
        known = set(parameters) & run.data.params.keys()
        return {"parameters": len(known), "datasets": len(inputs), "predictions": rows}

    def stored_files(self, folder: str | None = None) -> set[str]:
        """Paths of all artifacts."""
        found: set[str] = set()
        for item in self._client.list_artifacts(self.run_id, folder):
            found |= self.stored_files(item.path) if item.is_dir else {item.path}
        return found


def stored_datasets(uri: str, run_id: str) -> dict[str, str]:
    """Name → digest of the datasets of a run in the store. Raises StoreError."""
    with store_errors(uri):
        run = connect(uri).get_run(run_id)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {item.dataset.name: item.dataset.digest for item in inputs}


def _experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        file = sqlite_file(uri)
        place = None if file is None else (file.parent / "mlruns" / quote(name, safe=" ")).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place, tags=KIND))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise StoreError(
            f"tracking.experiment {name!r} is deleted in {mask(uri)}: restore it there, or name another one"
        )
    return str(found.experiment_id)


def _known(client: MlflowClient, run_id: str | None, tags: dict[str, str]) -> Run | None:
    from mlflow.exceptions import MlflowException

    try:
        run = None if run_id is None else client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    if run is None or run.info.lifecycle_stage != "active":
        return None
    return run if all(run.data.tags.get(name) == tags[name] for name in BIRTH) else None


def _tagged(client: MlflowClient, experiment: str, tags: dict[str, str]) -> Run | None:
    same = " and ".join(f"tags.`{name}` = '{tags[name]}'" for name in BIRTH)
    return next(iter(client.search_runs([experiment], filter_string=same)), None)
