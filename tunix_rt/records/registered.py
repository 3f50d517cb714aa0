"""A registered model as the run that produced it: enough of its record to predict with it again, anywhere."""

from __future__ import annotations

from pathlib import Path

from tunix_rt.config.model import REGISTERED, RegistryModel, parts_of
from tunix_rt.errors import ModelError
from tunix_rt.files import read_json, write_json
from tunix_rt.models.content import folder_digest
from tunix_rt.models.sources import materialise
from tunix_rt.runs.folder import RunFolder
from tunix_rt.tracking.registry import ModelStore

RECORDS = ("config.yaml", "data.json", "environment.json")


def registered_run(model: str, store: ModelStore, models: Path) -> RunFolder:
    """The run that produced `models:/NAME/VERSION`, below the folder `models`: config, data, trained model.

    Its own predictions and scores are not fetched. Raises ModelError, StoreError, DataError.
    """
    if REGISTERED.fullmatch(model) is None:
        raise ModelError(f"model.source={model}: without a run only a registered model: models:/NAME/VERSION")
    trained = materialise(RegistryModel(kind="registry", uri=model), models, store)
    run = RunFolder(models / "runs" / "-".join([*parts_of(model), trained.name.rpartition("-")[2]]))
    stages = run.path / "stages.json"
    if not stages.exists():
        run.path.mkdir(parents=True, exist_ok=True)
        store.fetch_records(model, (*RECORDS, stages.name), run.path)
        kept = {name: record for name, record in read_json(stages).items() if name in ("prepare", "train")}
        for record in kept.values():
            record.pop("folder", None)
            record.pop("outputs", None)  # only the model is fetched
        kept["train"]["model_digest"] = folder_digest(trained)  # for an adapter, the merged model is registered
        (run.path / "model").symlink_to(trained.resolve())
        write_json(run.data, read_json(run.data) | {"folder": "nowhere"})  # it is prepared again here
        write_json(stages, kept)
    return run
