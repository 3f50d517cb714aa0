"""Secrets given to a run in every way there is: none is in any file that it leaves, nor in MLflow."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex

import pytest

from tests.records.conftest import WORDS, Types, traces
from tunix_rt.files import read_json
from tunix_rt.runs.folder import all_runs

IN_URI, IN_QUERY, IN_VARIABLE = (token_hex(8) for _ in range(3))
"""Made here: what this file says may be in the diff that a run records."""


def holding(folder: Path, secret: str) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]


@pytest.mark.slow
def test_no_planted_secret_is_in_any_file(work: Path, types: Types, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", IN_VARIABLE)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", IN_VARIABLE)
    (work / "mine.jsonl").write_text(traces(60))
    words = [word for word in WORDS if word != "tracking=none"]
    origin = f"dataset.source.origin='https://me:{IN_URI}@host/x?token={IN_QUERY}&y={IN_VARIABLE}'"
    done = types(*words, origin, "tracking.num_traces=1", "tracking.wait_seconds=300")
    assert done.code == 0, done.err
    assert (work / "mlflow.db").exists()
    for secret in (IN_URI, IN_QUERY, IN_VARIABLE):
        assert holding(work, secret) == []
    (run,) = all_runs(work / "runs")
    assert "https://me:***@host/x?token=***" in run.config.read_text()
    assert read_json(run.environment)["variables"]["MLFLOW_TRACKING_PASSWORD"] == "***"
    assert "warning: tracking" not in done.err, "all of it was sent"
