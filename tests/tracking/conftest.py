"""A run recorded by the product itself, replayed for a sync process to send; an empty MLflow store for each test."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.conftest import TOY
from tests.pipeline.conftest import made_in
from tunix_rt.config.execution import TrackingConfig
from tunix_rt.experiment import recorded_config
from tunix_rt.files import write_jsonl
from tunix_rt.runs.folder import RunFolder, all_runs
from tunix_rt.stages.evaluate import evaluate
from tunix_rt.stages.report import report
from tunix_rt.traces.prediction import Prediction, read_predictions
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.trace import Trace
from tunix_rt.tracking.stores.mlflow import connect

PREDICTIONS = 30
MLFLOW = {"stores": {"mlflow": {}}}
TRACKING = {**MLFLOW, "experiment": "tests", "num_traces": 10, "log_model": False, "system_metrics": True}

MakeRun = Callable[..., tuple[RunFolder, TrackingConfig]]
Train = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished toy run, its untrained answers replaced: of thirty, three are wrong, in their second step too."""
    place = tmp_path_factory.mktemp("recorded")
    words = ("backend=torch", *TOY, f"dataset.limit.test={PREDICTIONS}")
    made_in(place, *words)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        (run,) = all_runs(Path("runs"))
        (prepared,) = (PreparedData(file.parent) for file in Path("data").glob("*/*/manifest.json"))
        made = zip(read_predictions(run.predictions), prepared.traces("test"), strict=True)
        write_jsonl(run.predictions, [_answered(*pair, number % 10 == 3).to_json() for number, pair in enumerate(made)])
        evaluation = recorded_config(run).evaluation
        evaluate(evaluation, "test", prepared, run)
        report(run)
    return RunFolder(place / run.path)


def _answered(prediction: Prediction, trace: Trace, wrong: bool) -> Prediction:
    steps = tuple(step.content for step in trace.steps)
    answer = trace.final_answer
    if wrong:
        steps, answer = (steps[0], f"{steps[1]}1", *steps[2:]), f"{answer}0"
    text = ";".join([*steps, answer])
    return replace(prediction, steps=steps, answer=answer, completion=text, finish_reason="stop")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables, made once: the migrations take seconds."""
    file = tmp_path_factory.mktemp("store") / "empty.db"
    connect(f"sqlite:///{file}")
    return file


@pytest.fixture
def make_run(tmp_path: Path, recorded: RunFolder) -> MakeRun:
    """Makes a run folder that has only the recorded config, with another tracking section, and that section."""

    def make(identity: str = "0123456789ab", **values: Any) -> tuple[RunFolder, TrackingConfig]:
        run = RunFolder(tmp_path / "runs" / "quickstart" / identity)
        run.path.mkdir(parents=True)
        section = {"uri": f"sqlite:///{tmp_path}/mlflow.db", "wait_seconds": 5.0, **TRACKING, **values}
        OmegaConf.save({**OmegaConf.load(recorded.config), "tracking": section}, run.config)
        return run, TrackingConfig(**section)

    return make


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> str:
    """The URI of an empty store of this test's own, where `make_run` sends to."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def train(recorded: RunFolder) -> Iterator[Train]:
    """Starts a stand-in for the training process (`replay.py`) and waits until it has begun."""
    started: list[subprocess.Popen[bytes]] = []

    def start(run: RunFolder, *words: str) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("replay.py")
        pid = run.status().get("pid")
        process = subprocess.Popen([sys.executable, str(script), str(recorded.path), str(run.path), *words])
        started.append(process)
        while run.status().get("pid") == pid:
            assert process.poll() in (None, 0)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
