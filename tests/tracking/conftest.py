import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.runs.folder import RunFolder
from tunix_rt.tracking.mlflow import connect

CONFIG = """\
name: quickstart
seed: 0
backend: {{name: jax, precision: float32}}
optimizer: {{name: adamw, learning_rate: 3e-3, betas: [0.9, 0.99]}}
dataset: {{name: arithmetic, note: {note}}}
tracking: {{kind: mlflow, uri: '{uri}', experiment: tests, num_traces: {num_traces}, log_model: false,
  system_metrics: true, wait_seconds: {wait_seconds}}}
"""

Train = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables, made once: the migrations take seconds."""
    file = tmp_path_factory.mktemp("store") / "empty.db"
    connect(f"sqlite:///{file}")
    return file


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., tuple[RunFolder, TrackingConfig]]:
    """Makes a run folder that has only its config, and the tracking section in it."""

    def make(identity: str = "0123456789ab", **values: Any) -> tuple[RunFolder, TrackingConfig]:
        default = {"uri": f"sqlite:///{tmp_path}/mlflow.db", "num_traces": 10, "wait_seconds": 40.0, "note": "n" * 700}
        run = RunFolder(tmp_path / "runs" / "quickstart" / identity)
        run.path.mkdir(parents=True)
        values = default | values
        run.config.write_text(CONFIG.format(**values))
        del values["note"]
        section = {"kind": "mlflow", "experiment": "tests", "log_model": False, "system_metrics": True}
        return run, TrackingConfig(**(section | values))

    return make


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> str:
    """The URI of an empty store of this test's own, where `make_run` sends to."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def train() -> Iterator[Train]:
    """Starts a stand-in for the training process (`fake_training.py`) and waits until it has begun."""
    started: list[subprocess.Popen[bytes]] = []

    def start(run: RunFolder, *words: str) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("fake_training.py")
        pid = run.status().get("pid")
        process = subprocess.Popen([sys.executable, str(script), str(run.path), *words])
        started.append(process)
        while run.status().get("pid") == pid:
            assert process.poll() in (None, 0)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
