"""MLflow as a store: finds or creates the run and writes idempotently; traces are in `_mlflow_traces.py`.

Any error of MLflow becomes a StoreError, one line without passwords. MLflow is imported by the first method that is
called, and only in the sync process and the commands of the model registry.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args
from urllib.parse import quote

from tunix_rt.files import to_json
from tunix_rt.runs.secrets import mask
from tunix_rt.tracking.store import DataSplit, Entry, Facts, Status, Store, StoreError, StoreRefused, Table
from tunix_rt.tracking.stores import _mlflow_pages as pages
from tunix_rt.tracking.stores import _mlflow_uri as uris
from tunix_rt.tracking.stores._mlflow_traces import send_traces
from tunix_rt.tracking.tail import Point

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run
    from mlflow.tracking import MlflowClient

F = TypeVar("F", bound=Callable[..., Any])

ALWAYS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow would print the URI with its password when a run ends."""
DEFAULTS = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Set before mlflow is imported. No retries in MLflow: the sync process does them, without blocking."""

STATUS = {status: status.upper() for status in get_args(Status)} | {"waiting": "SCHEDULED"}
IDENTITY = ("tunix_rt.identity", "tunix_rt.key")
TAGS = {"user": "mlflow.user", "command": "mlflow.source.name", "commit": "mlflow.source.git.commit"}
NAME, PARENT, NOTE = "mlflow.runName", "mlflow.parentRunId", "mlflow.note.content"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Selects MLflow's pages for training, unless its reader prefers others; traces alone would mean an application."""
MAX_PARAM, MAX_TAG = 500, 5000
BATCH, PARAMS = 1000, 100
TABLES = "mlflow.loggedArtifacts"
LONG_PARAMS = "long_params.json"
DIGEST = 16
"""Hex digits of a data set's hash that MLflow shows next to its name; the profile has all of them."""
LOCK_SECONDS = 120.0
LOG = logging.getLogger(__name__)


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn any error of MLflow into StoreError."""
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
    except ImportError as error:
        raise StoreRefused(f"tracking.uri {mask(uri)}: {error}") from error


@contextmanager
def tolerated(*codes: str) -> Iterator[None]:
    """Leave the block where MLflow refuses with one of these error codes, without an error."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in codes:
            raise


def _prepare_import() -> None:
    os.environ.update(ALWAYS)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def connect(uri: str) -> MlflowClient:
    """A client of the store. A SQLite file is created by one process while the others wait."""
    _prepare_import()
    from filelock import FileLock
    from mlflow.tracking import MlflowClient

    file = uris.sqlite_file(uri)
    if file is None:
        return MlflowClient(tracking_uri=uri)
    if file.exists() and not uris.is_sqlite(file):
        raise StoreRefused(f"tracking.uri {uri}: {file}: not a SQLite file; move it away, or name another one")
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock", timeout=LOCK_SECONDS):
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
        return client


def _guarded(method: F) -> F:
    @wraps(method)
    def guarded(self: MlflowStore, *words: Any) -> Any:
        with store_errors(self.uri):
            return method(self, *words)

    return cast(F, guarded)


class MlflowStore(Store):
    """One run in MLflow."""

    title = "MLflow"
    run_id: str
    _client: MlflowClient
    _experiment_id: str

    check = staticmethod(uris.check)
    resolve = staticmethod(uris.resolve)

    @classmethod
    def ui_command(cls, uri: str, folder: Path) -> str:
        return uris.ui_command(uri)

    @_guarded
    def open(self, entry: Entry) -> str:
        client = self._client = connect(self.uri)
        place = _experiment_id(client, self.uri, self.experiment)
        tags = {NAME: entry.name, "mlflow.source.type": "LOCAL"} | _tags(entry.tags)
        tags |= {} if entry.parent is None else {PARENT: entry.parent}
        run = _known(client, entry.known, tags) or _tagged(client, place, tags)
        if run is None:
            run = client.create_run(place, start_time=entry.started, tags=tags)
        self._experiment_id, self.run_id = str(run.info.experiment_id), str(run.info.run_id)
        if entry.parent is not None and run.data.tags.get(PARENT) != entry.parent:
            client.set_tag(self.run_id, PARENT, entry.parent)
        if entry.running and run.info.status != STATUS["running"]:
            client.update_run(self.run_id, STATUS["running"])
        return self.run_id

    @_guarded
    def params(self, facts: Facts) -> None:
        """Long values are truncated; the artifact `long_params.json` has them in full."""
        from boltons.iterutils import chunked
        from mlflow.entities import Param, RunTag

        present = self._client.get_run(self.run_id).data.params
        long = {key: value for key, value in facts.parameters.items() if len(value) > MAX_PARAM}
        if long:
            self._client.log_dict(self.run_id, long, LONG_PARAMS)
        values = facts.parameters | {key: f"{value[: MAX_PARAM - 1]}…" for key, value in long.items()}
        missing = [Param(key, value) for key, value in values.items() if key not in present]
        for batch in chunked(missing, PARAMS):
            self._client.log_batch(self.run_id, params=batch)
        for key in (key for key, value in values.items() if present.get(key, value) != value):
            LOG.warning("parameter %s: MLflow keeps the value sent first; its config.yaml has the new one", key)
        tags = _tags(facts.tags) | ({NOTE: self._note(facts.note)} if facts.note else {})
        self._client.log_batch(self.run_id, tags=[RunTag(key, value[:MAX_TAG]) for key, value in tags.items()])
        if facts.datasets:
            self._client.log_inputs(self.run_id, [_dataset(split) for split in facts.datasets])

    def _note(self, text: str) -> str:
        """The description, with links out of MLflow's view for GenAI in its first line."""
        run, runs = pages.run_link(self._experiment_id, self.run_id), pages.list_link(self._experiment_id)
        first, blank, rest = text.partition("\n\n")
        return f"{first} · [in the training view]({run}) · [all runs with their scores]({runs}){blank}{rest}"

    def page(self) -> str:
        return pages.run_page(self.uri, self._experiment_id, self.run_id)

    @_guarded
    def metrics(self, points: Sequence[Point]) -> None:
        """Keys are renamed, so that what matters comes first (`_mlflow_pages`)."""
        from boltons.iterutils import chunked
        from mlflow.entities import Metric

        for batch in chunked([Metric(pages.metric_key(p.key), p.value, p.time, p.step) for p in points], BATCH):
            self._client.log_batch(self.run_id, metrics=batch)

    @_guarded
    def artifact(self, name: str, content: Path | str) -> None:
        if isinstance(content, str):
            self._client.log_text(self.run_id, content, name)
        elif content.is_dir():
            self._client.log_artifacts(self.run_id, str(content), name)
        else:
            folder = str(PurePosixPath(name).parent)
            self._client.log_artifact(self.run_id, str(content), None if folder == "." else folder)

    @_guarded
    def table(self, table: Table) -> None:
        """Stores the table as MLflow shows tables (`log_table` would append to an old one), and examples as traces."""
        self._client.log_text(self.run_id, to_json({"columns": table.columns, "data": table.rows}), table.name)
        self._client.set_tag(self.run_id, TABLES, json.dumps([{"path": table.name, "type": "table"}]))
        if not table.examples:
            return
        try:
            send_traces(self._client, self.uri, self._experiment_id, self.run_id, table.examples, table.time)
        except NotImplementedError as error:  # a server before MLflow 3.4
            LOG.warning("no traces were sent: %s", error)

    @_guarded
    def close(self, status: Status, ended: int | None) -> None:
        """RUNNING again after KILLED is allowed."""
        if status in ("running", "waiting"):
            self._client.update_run(self.run_id, STATUS[status])
        else:
            self._client.set_terminated(self.run_id, STATUS[status], ended)

    @_guarded
    def models(self, run_id: str) -> list[str]:
        found = connect(self.uri).search_model_versions(f"run_id = '{run_id}'")
        return sorted(f"models:/{version.name}/{version.version}" for version in found)

    @_guarded
    def remove(self, run_id: str) -> None:
        """MLflow keeps what is deleted until `mlflow gc`."""
        with tolerated("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"):
            connect(self.uri).delete_run(run_id)


STORE = MlflowStore


def _tags(tags: dict[str, str]) -> dict[str, str]:
    return {TAGS.get(key, key): value[:MAX_TAG] for key, value in tags.items()}


def _dataset(split: DataSplit) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    source, profile = json.dumps({"uri": split.source}), json.dumps(split.profile)
    dataset = Dataset(split.name, split.sha256[:DIGEST], "local", source, profile=profile)
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, split.context)])


def _experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        file = uris.sqlite_file(uri)
        place = None if file is None else (file.parent / "mlruns" / quote(name, safe=" ")).as_uri()
        with tolerated("RESOURCE_ALREADY_EXISTS"):
            client.create_experiment(name, artifact_location=place, tags=KIND)
        found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise StoreRefused(uris.deleted(uri, name))
    for key, value in pages.VIEW.items():
        if found.tags.get(key) != value:
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def _known(client: MlflowClient, run_id: str | None, tags: dict[str, str]) -> Run | None:
    run: Run | None = None
    if run_id is not None:
        with tolerated("RESOURCE_DOES_NOT_EXIST"):
            run = client.get_run(run_id)
    if run is None or run.info.lifecycle_stage != "active":
        return None
    return run if all(run.data.tags.get(name) == tags[name] for name in IDENTITY) else None


def _tagged(client: MlflowClient, experiment: str, tags: dict[str, str]) -> Run | None:
    same = " and ".join(f"tags.`{name}` = '{tags[name]}'" for name in IDENTITY)
    return next(iter(client.search_runs([experiment], filter_string=same)), None)
