"""The model registry: registers a run's model with metrics, data and signature under a name, and fetches it again.

What is registered is the Hugging Face folder itself, as the artifact of an MLflow logged model: no pickle, no
framework. Its digest is a tag of the version and is checked on loading.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.config.model import parts_of
from tunix_rt.errors import InputError, ModelError
from tunix_rt.files import read_json
from tunix_rt.inference.trained import whole_model
from tunix_rt.models.content import folder_digest
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.secrets import mask
from tunix_rt.tracking import content
from tunix_rt.tracking.state import FIRST, SyncState
from tunix_rt.tracking.store import StoreError
from tunix_rt.tracking.stores._mlflow_pages import metric_key
from tunix_rt.tracking.stores._mlflow_uri import resolve, sqlite_file
from tunix_rt.tracking.stores.mlflow import connect, store_errors, tolerated
from tunix_rt.tracking.sync import sync_folder

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FOLDER = "model"
"""Name of the model folder among the artifacts of the logged model."""
DIGEST = "tunix_rt.model_digest"


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a registered model."""

    uri: str
    """`models:/NAME/VERSION`"""
    store: str
    run_id: str
    model_id: str
    digest: str


def register(run: RunFolder, name: str, uri: str | None) -> Registered:
    """Register the model of a finished run in the store of its config, or in `uri`; the run is sent there first.

    Raises InputError (not finished), ModelError, DataError, StoreError.
    """
    run.check_finished("model to register")
    if not run.model.is_dir():
        raise InputError(f"{run.name}: its model folder is missing; run its command again")
    elsewhere = None if uri is None else resolve(uri, Path.cwd())
    tracking = replace(content.read_tracking(run, elsewhere), stores={FIRST: {}})
    report = sync_folder(run, tracking, watch=False)
    if report.run_id is None or not report.complete:
        raise StoreError(report.message)
    store = resolve(tracking.uri, Path(SyncState.load(run.path).directory))
    with whole_model(run, "registered") as model, store_errors(store), _global_store(store):
        digest, client = folder_digest(model), connect(store)
        tags = _tags(run, digest)
        model_id = _log_model(client, run, model, report.run_id, name, tags)
        with tolerated("RESOURCE_ALREADY_EXISTS"):
            client.create_registered_model(name)
        place, text = f"models:/{model_id}", content.description(run)
        made = client.create_model_version(name, place, report.run_id, tags, description=text, model_id=model_id)
    return Registered(f"models:/{name}/{made.version}", mask(store), report.run_id, model_id, digest)


@contextmanager
def _global_store(uri: str) -> Iterator[None]:
    """Sets MLflow's global store for a block: MLflow looks up the source of a version there, not in the client's."""
    import mlflow

    variable = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # forgets it, and removes the variable
        if variable is not None:
            os.environ["MLFLOW_TRACKING_URI"] = variable


def _log_model(client: MlflowClient, run: RunFolder, model: Path, run_id: str, name: str, tags: dict[str, str]) -> str:
    """Create a logged model of the run: folder, signature, tags, and the run's results as its metrics."""
    from mlflow.entities import Metric

    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name, run_id, tags=tags)
    client.log_model_artifacts(logged.model_id, str(model), FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        _description(run_id, logged.model_id, logged.artifact_location).save(str(Path(folder) / "MLmodel"))
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    data = read_json(run.data)
    of = {"model_id": logged.model_id, "dataset_name": str(data["name"]), "dataset_digest": str(data["digest"])[:16]}
    points = [point for point in content.results(run) if point.key.startswith("score/")]
    client.log_batch(run_id, metrics=[Metric(metric_key(p.key), p.value, p.time, p.step, **of) for p in points])
    return str(logged.model_id)


def _description(run_id: str, model_id: str, place: str) -> Any:
    """The content of MLflow's file `MLmodel`: a prompt goes in, a completion comes out."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    inputs, outputs = (Schema([ColSpec(DataType.string, name)]) for name in ("prompt", "completion"))
    made = Model(artifact_path=place, run_id=run_id, signature=ModelSignature(inputs, outputs), model_id=model_id)
    return made.add_flavor("tunix_rt", data=FOLDER)


def _tags(run: RunFolder, digest: str) -> dict[str, str]:
    """Where the model comes from: data, declared experiment, backend, commit."""
    recorded = content.recorded_tags(run, content.read_config(run))
    tags = {
        DIGEST: digest,
        "tunix_rt.data_digest": str(read_json(run.data)["digest"]),
        "tunix_rt.identity": run.path.name,
        "tunix_rt.run": run.name,
        "tunix_rt.backend": recorded["tunix_rt.backend"],
        "tunix_rt.commit": recorded.get("commit", ""),
    }
    return {key: value for key, value in tags.items() if value}


@dataclass(frozen=True, slots=True)
class ModelStore:
    """The registered models of a store; implements `sources.Store` of `models/sources.py`."""

    uri: str
    """`tracking.uri`"""

    @classmethod
    def of(cls, tracking: TrackingConfig, directory: Path) -> ModelStore:
        """The store at `tracking.uri`; a relative SQLite file is resolved against `directory`."""
        return cls(resolve(tracking.uri, directory))

    def digest(self, model: str) -> str:
        """The digest of the folder that was registered as `models:/NAME/VERSION`. Raises ModelError, StoreError."""
        with self._version(model) as (_, version):
            return str(version.tags[DIGEST])

    def fetch(self, model: str, folder: Path) -> None:
        """Download what was registered to `folder`, which must not exist. Raises ModelError, StoreError."""
        with self._version(model) as (client, _), tempfile.TemporaryDirectory(dir=folder.parent) as place:
            from mlflow.artifacts import download_artifacts

            where = client.get_model_version_download_uri(*parts_of(model))
            found = Path(download_artifacts(artifact_uri=where, dst_path=place, tracking_uri=self.uri))
            shutil.move(found / FOLDER, folder)

    def fetch_records(self, model: str, names: Sequence[str], folder: Path) -> None:
        """Download records of the registered run, in the given order. Raises as `fetch` does."""
        with self._version(model) as (client, version):
            for name in names:
                client.download_artifacts(str(version.run_id), name, str(folder))

    def pinned(self, model: str) -> str:
        """`models:/NAME/VERSION` of `models:/NAME@ALIAS`; a version stays as it is. Raises ModelError, StoreError."""
        name, at, alias = model.removeprefix("models:/").partition("@")
        if not at:
            return model
        with self._client() as client:
            version = None
            with tolerated("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                version = client.get_model_version_by_alias(name, alias)
            if version is None:
                raise ModelError(f"{model}: no such alias in {mask(self.uri)}; {_those_there_are(client, name)}")
            return f"models:/{name}/{version.version}"

    def tags(self, model: str) -> dict[str, str]:
        """The tags of a registered version, such as `tunix_rt.run`. Raises ModelError, StoreError."""
        with self._version(model) as (_, version):
            return dict(version.tags)

    @contextmanager
    def _client(self) -> Iterator[MlflowClient]:
        """A client of a store that exists."""
        file = sqlite_file(self.uri)
        if file is not None and not file.exists():
            raise ModelError(f"tracking.uri {self.uri}: no such file, so no registered model is there")
        with store_errors(self.uri):
            yield connect(self.uri)

    @contextmanager
    def _version(self, model: str) -> Iterator[tuple[MlflowClient, Any]]:
        """A client and the version, for a block in which any error of MLflow becomes a StoreError."""
        name, number = parts_of(model)
        with self._client() as client:
            version = None
            with tolerated("RESOURCE_DOES_NOT_EXIST"):
                version = client.get_model_version(name, number)
            if version is None:
                raise ModelError(f"model.source {model}: not in {mask(self.uri)}; {_those_there_are(client, name)}")
            if DIGEST not in version.tags:
                raise ModelError(f"model.source {model}: registered by something else (it has no tag {DIGEST})")
            yield client, version


def _those_there_are(client: MlflowClient, name: str) -> str:
    versions = sorted(int(found.version) for found in client.search_model_versions(f"name = '{name}'"))
    if versions:
        return f"{name} has the versions {', '.join(map(str, versions))}"
    names = sorted(found.name for found in client.search_registered_models())
    return f"registered are: {', '.join(names)}" if names else "no model is registered there"
