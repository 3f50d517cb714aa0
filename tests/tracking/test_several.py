"""One run sent to several stores at once: none waits for another, and each has everything once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tracking.conftest import MakeRun, Train
from tests.tracking.toy_store import ToyStore
from tunix_rt.commands.rm import staying
from tunix_rt.config.change import of_today
from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import ConfigError, MissingExtra
from tunix_rt.runs.folder import RunFolder
from tunix_rt.tracking import store as interface
from tunix_rt.tracking import sync as process
from tunix_rt.tracking.content import read_tracking
from tunix_rt.tracking.state import SyncState, report_on
from tunix_rt.tracking.store import StoreError, check, ui_command
from tunix_rt.tracking.sync import sync_folder

BOTH: dict[str, Any] = {"stores": {"toy": {}, "tensorboard": {}}}


class Slow(ToyStore):
    """A store whose server takes a second for each call, and then is down."""

    calls = 0

    def metrics(self, points: Any) -> None:
        type(self).calls += 1
        time.sleep(1)
        raise StoreError("the toy is down")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`toy` is one of the stores; the file that it writes."""
    real = interface.store_class
    monkeypatch.setattr(interface, "store_class", lambda kind: ToyStore if kind == "toy" else real(kind))
    return tmp_path / "toy.jsonl"


def recorded(run: RunFolder, key: str) -> list[tuple[int, float]]:
    """As float32, which TensorBoard keeps."""
    lines = [json.loads(line) for line in run.metrics_log.read_text().splitlines()]
    return [(line["step"], float(np.float32(line[key]))) for line in lines if key in line]


def in_tensorboard(run: RunFolder, key: str) -> list[tuple[int, float]]:
    found = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(key)]


def test_each_store_has_everything_once_and_a_state_of_its_own(make_run: MakeRun, train: Train, toy: Path) -> None:
    run, tracking = make_run(uri=f"toy://host{toy}", **BOTH)
    train(run).wait()
    report = sync_folder(run, tracking, watch=True)
    assert report.complete and report == report_on(run, tracking.stores), report.message
    for _ in range(2):  # sent again, nothing is added
        assert in_tensorboard(run, "train/loss") == recorded(run, "train/loss")
        assert sync_folder(run, tracking, watch=False).complete
    assert in_tensorboard(run, "score/accuracy") == [(0, float(np.float32(0.9)))]
    calls = [json.loads(line) for line in toy.read_text().splitlines()]
    points = [tuple(point) for call, value in calls if call == "metrics" for point in value]
    points = [point for point in points if point[0].startswith(("train/", "eval/"))]  # the replay times a step twice
    assert len(points) == len(set(points)) and ("train/loss", 12) in {point[:2] for point in points}
    assert {file.name for file in run.path.glob("tracking*.json")} == {"tracking.toy.json", "tracking.tensorboard.json"}
    assert {state.kind for state in SyncState.all_of(run.path)} == set(tracking.stores)
    assert str(ui_command(tracking, run.path)).splitlines()[1].endswith(f"tensorboard --logdir {run.path.parent}")
    assert [line for line in staying(run, False) if "tensorboard" in line] == [], "it goes with the folder"


def test_a_store_that_is_slow_and_down_holds_up_none(
    make_run: MakeRun, train: Train, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents: a run that no tracker shows, since the first of them does not answer."""
    real = interface.store_class
    monkeypatch.setattr(interface, "store_class", lambda kind: Slow if kind == "toy" else real(kind))
    monkeypatch.setattr(process, "PATIENCE", 3.0)
    run, tracking = make_run(uri=f"toy://host{toy}", **BOTH)
    train(run).wait()
    report = sync_folder(run, tracking, watch=True)
    assert not report.complete and "the toy is down; not everything was sent" in report.message
    assert "tensorboard run" in report.message and "all sent" in report.message
    assert Slow.calls > 1
    assert in_tensorboard(run, "train/loss") == recorded(run, "train/loss")
    monkeypatch.setattr(interface, "store_class", real)
    assert sync_folder(run, tracking, watch=False).complete
    assert in_tensorboard(run, "train/loss") == recorded(run, "train/loss")


def section(stores: dict[str, Any]) -> TrackingConfig:
    kept: dict[str, Any] = {"num_traces": 0, "log_model": False, "system_metrics": False, "wait_seconds": 0.0}
    return TrackingConfig(stores=stores, uri="sqlite:///mlflow.db", experiment="tests", **kept)


def test_a_wrong_setting_and_a_missing_package_are_found_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.stores\.wandb\.mod: .*\(its settings: mode, entity, tags\)"):
        check(section({"wandb": {"mod": "offline"}}))
    with pytest.raises(ConfigError, match=r"tracking\.stores\.tensorboard\.log_dir: "):
        check(section({"tensorboard": {"log_dir": 3}}))
    assert check(section({"tensorboard": {}, "wandb": {"mode": "offline", "tags": ["a"]}})) == []
    monkeypatch.setattr(interface, "find_spec", lambda package: None)
    for kind in ("tensorboard", "wandb"):
        with pytest.raises(
            MissingExtra, match=f"tracking={kind} needs the package {kind}: uv sync --inexact --extra {kind}"
        ):
            check(section({kind: {}}))
        assert ui_command(section({kind: {}}), Path("runs/a/b")), "a run is looked at where it was not made, too"


@pytest.mark.parametrize(("kind", "stores"), [("mlflow", {"mlflow": {}}), ("none", {}), ("toy", {"toy": {}})])
def test_a_record_of_one_store_is_read(kind: str, stores: dict[str, Any], make_run: MakeRun) -> None:
    """Runs recorded before there were several."""
    run, _ = make_run()
    earlier = {key: value for key, value in run.read_config()["tracking"].items() if key != "stores"} | {"kind": kind}
    assert of_today({"tracking": earlier})["tracking"]["stores"] == stores
    run.config.write_text(json.dumps(run.read_config() | {"tracking": earlier}))
    assert read_tracking(run).stores == stores
