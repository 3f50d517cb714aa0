"""Secrets given to a run in every way there is: none is in any file that it leaves, nor in MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.conftest import Person
from tests.records.conftest import WORDS, traces
from tunix_rt.files import read_json
from tunix_rt.runs.folder import all_runs

IN_URI, IN_QUERY, IN_VARIABLE = "planted1URI", "planted2query", "planted3variable"


def holding(folder: Path, secret: str) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]


@pytest.mark.slow
def test_no_planted_secret_is_in_any_file(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", IN_VARIABLE)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", IN_VARIABLE)
    (person.folder / "mine.jsonl").write_text(traces(60))
    words = [word for word in WORDS if word != "tracking=none"]
    origin = f"dataset.source.origin='https://me:{IN_URI}@host/x?token={IN_QUERY}&y={IN_VARIABLE}'"
    done = person.types(*words, origin, "tracking.num_traces=1")
    assert done.code == 0, done.err
    assert (person.folder / "mlflow.db").exists()
    for secret in (IN_URI, IN_QUERY, IN_VARIABLE):
        assert holding(person.folder, secret) == []
    (run,) = all_runs(person.folder / "runs")
    assert "https://me:***@host/x?token=***" in run.config.read_text()
    assert read_json(run.environment)["variables"]["MLFLOW_TRACKING_PASSWORD"] == "***"
    assert "tracking: " not in done.err

    lost = f"tracking.uri=http://me:{IN_URI}@127.0.0.1:9"
    away = person.types(*words, "seed=1", lost, "tracking.wait_seconds=1", "training.row_length=2")
    assert away.code == 2, "a row of two positions holds no trace: this run fails"
    again = person.types(*words, "seed=1", lost, "tracking.wait_seconds=2")
    assert again.code == 0, again.err
    assert holding(person.folder, IN_URI) == []
    log = all_runs(person.folder / "runs")[-1].path / "tracking.log"
    assert "me:***@127.0.0.1:9" in log.read_text()
