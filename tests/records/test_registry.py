"""A registered model: what MLflow knows of it, and a config that starts from it by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.records.conftest import WORDS, Types
from tunix_rt.commands.rm import staying
from tunix_rt.files import read_json
from tunix_rt.models.content import folder_digest
from tunix_rt.runs.folder import RunFolder, all_runs

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

START = (*WORDS, "name=again", "tokenizer=pretrained", "training.max_steps=2")


@pytest.mark.slow
def test_a_registered_model_is_described_found_and_started_from(finished: RunFolder, types: Types) -> None:
    done = types("register", "last", "--name", "toy", "--uri", "sqlite:///store/models.db", "--json")
    assert done.code == 0, done.err
    made = json.loads(done.out)
    assert made["uri"] == "models:/toy/1"
    client = MlflowClient("sqlite:///store/models.db")
    version = client.get_model_version("toy", "1")
    assert version.tags["tunix_rt.data_digest"] == read_json(finished.data)["digest"]
    assert version.tags["tunix_rt.model_digest"] == folder_digest(finished.model)
    assert (version.tags["tunix_rt.backend"], version.run_id) == ("torch", made["run_id"])
    assert client.get_run(version.run_id).info.status == "FINISHED"
    logged = client.get_logged_model(made["model_id"])
    metrics = {metric.key: metric.value for metric in logged.metrics or []}
    assert metrics["1_score/accuracy"] == read_json(finished.metrics)["accuracy"]["value"]
    place = Path(logged.artifact_location.removeprefix("file://"))
    description = (place / "MLmodel").read_text()
    assert '"name": "prompt"' in description and '"name": "completion"' in description
    assert "python_function" not in description, "nothing is unpickled"

    store = "tracking.uri=sqlite:///store/models.db"
    started = types(*START, store, "model.source=models:/toy/1")
    assert started.code == 0, started.err
    run = all_runs(Path("runs"))[-1]
    assert run.data_hashes()["sources"]["model.source"] == made["digest"]
    assert run.stages()["train"]["model_digest"] != made["digest"], "trained on from there"
    before = (run.path / "baseline_predictions.jsonl").read_bytes()
    assert before == finished.predictions.read_bytes(), "its start answers as the registered model did"
    assert types("reproduce", "again").code == 0, "by name too, with the store of the record"

    words = ("generation.max_new_tokens=6", "tracking=none", "run.root=elsewhere")
    asked = types("predict", "model.source=models:/toy/1", store, *words)
    assert asked.code == 0, asked.err
    assert "train: done by runs/toy-1-" in asked.err, "never trained again"
    (answered,) = all_runs(Path("elsewhere"))
    assert folder_digest(answered.model) == made["digest"]
    client.set_registered_model_alias("toy", "best", "1")
    gate = ("gate", "last", "--root", "elsewhere", store, "against=models:/toy@best")
    assert types(*gate, "must_not_drop_by=0.5").out.startswith("gate passed: accuracy ")
    assert types(*gate, "must_not_drop_by=0.01").code == 5, "four prompts are no proof"
    assert "no such alias" in types(*gate[:-1], "against=models:/toy@worst", "must_not_drop_by=0.5").err
    nowhere = types("predict", "model.source=toy", store)
    assert (nowhere.code, "models:/NAME/VERSION" in nowhere.err) == (2, True)

    _check_refusals(types, place, store)

    (mine, *_) = list(staying(finished, removing=False))
    assert mine.startswith(f"{finished.name}: its run {made['run_id']} in sqlite:///"), "it is said before it is asked"
    gone = types("rm", finished.name, "--yes", "--force", "--tracking", "--json")
    assert gone.code == 0, gone.err
    (kept,) = json.loads(gone.out)["stays"]
    assert kept == f"{finished.name}: its registered model models:/toy/1 stays registered"
    assert client.get_run(made["run_id"]).info.lifecycle_stage == "deleted"


def _check_refusals(types: Types, place: Path, store: str) -> None:
    for words, expected in (
        (("model.source=models:/toy/7", store), "not in sqlite:///store/models.db; toy has the versions 1"),
        (("model.source=models:/other/1", store), "registered are: toy"),
        (("model.source=models:/toy/1", "tracking.uri=sqlite:///no.db"), "no.db: no such file"),
        (("model.source=models:/toy/latest", store), "expected models:/NAME/VERSION with a number"),
    ):
        done = types(*START, *words)
        assert done.code == 2
        assert expected in done.err
    (cached,) = Path("data/models").glob("toy-1-*[!k]")
    (cached / "config.json").write_text((cached / "config.json").read_text() + "\n")
    changed = types(*START, store, "model.source=models:/toy/1", "generation.max_new_tokens=6")
    assert (changed.code, f"warning: {cached}/config.json: damaged" in changed.err) == (0, True), "fetched again"
    (place / "model" / "config.json").write_text("{}")
    for file in (*cached.iterdir(), cached):
        file.unlink() if file.is_file() else file.rmdir()
    other = types(*START, store, "model.source=models:/toy/1", "seed=7")
    assert (other.code, "the store holds another content than was registered" in other.err) == (2, True)


def test_what_cannot_be_registered(work: Path, types: Types) -> None:
    run = RunFolder(work / "runs" / "e" / "abc")
    run.path.mkdir(parents=True)
    run.begin()
    done = types("register", "last", "--name", "x")
    assert (done.code, "not finished, so there is no model to register" in done.err) == (2, True)


def test_a_registry_source_without_a_version_is_one_clear_line(types: Types) -> None:
    done = types("model=registry", "tokenizer=pretrained")
    assert (done.code, done.err) == (2, "error: model.source.uri: missing: it has no default and must be given\n")
