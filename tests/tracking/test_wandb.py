"""Weights & Biases offline: what is in its own record of a run, which `wandb sync` sends. No network is there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.tracking import one_store
from tunix_rt.tracking.store import StoreError
from tunix_rt.tracking.stores._wandb_file import records, rows
from tunix_rt.tracking.stores.wandb import WandbSettings, WandbStore

SCRIPT = Path(one_store.__file__)
SETTINGS = {"mode": "offline", "tags": ["a word"]}


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is logged in, whoever runs the tests."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_it_is_offline_unless_one_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = WandbStore.address
    assert address("", WandbSettings()) == "the run's folder"
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123456789\n")
    assert address("", WandbSettings()) == "https://api.wandb.ai"
    assert address("", WandbSettings(mode="offline")) == "the run's folder"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert address("", WandbSettings()) == "the run's folder"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert address("", WandbSettings(mode="online")) == "https://wandb.example.org"


def test_a_run_that_is_not_there_is_removed_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: `rm --tracking` that fails every time, since somebody removed the run in the browser."""
    import wandb

    class Api:
        default_entity = "me"
        said = "Could not find run <Run me/tests/x (not found)>"

        def run(self, path: str) -> None:
            raise ValueError(self.said)

    monkeypatch.setattr(wandb, "Api", Api)
    store = WandbStore("https://wandb.example.org", "tests", WandbSettings(mode="online"))
    store.remove("x")
    monkeypatch.setattr(Api, "said", "Could not find project tests")
    with pytest.raises(StoreError, match="Could not find project"):
        store.remove("x")


@pytest.mark.acceptance
def test_a_killed_process_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Its second start makes a second folder of the same run, which has only the rest."""
    words = [sys.executable, str(SCRIPT), "wandb", json.dumps(SETTINGS), str(tmp_path)]
    assert subprocess.run([*words, "4"], check=False).returncode == -9
    assert subprocess.run([*words, "6", "--close"], check=False).returncode == 0
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1
    run_id = files[0].stem.removeprefix("run-")
    found = list(rows(tmp_path / "wandb", run_id))
    points = Counter(
        (key, row["step"], round(1000 * row["_timestamp"]), row[key])
        for row in found
        for key in row
        if key in ("train/loss", "eval/loss", "system/cpu")
    )
    assert points == Counter(tuple(point) for point in one_store.points(1, 6))
    assert [row["_step"] for row in found] == list(range(len(found)))
    assert sum("figures/loss" in row for row in found) == sum("predictions" in row for row in found) == 1
    kinds = Counter(record.WhichOneof("record_type") for file in files for record in records(file))
    assert not {"stats", "output", "output_raw"} & kinds.keys(), "W&B gathers nothing by itself"
    run = next(record.run for record in records(files[1]) if record.WhichOneof("record_type") == "run")
    assert (run.project, run.display_name, list(run.tags)) == ("tests", "quickstart-01234567", ["a word"])
    config = {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for record in records(files[1])
        if record.WhichOneof("record_type") == "config"
        for item in record.config.update
    }
    assert (config["training.max_steps"], config["backend.name"]) == (6, "torch")
    kept = {file.relative_to(files[1].parent / "files").as_posix() for file in files[1].parent.glob("files/**/*.*")}
    assert "report.md" in kept and "wandb-metadata.json" not in kept and "requirements.txt" not in kept
