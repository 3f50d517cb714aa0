"""`rm` and `gc`: what goes, what stays, and who is asked."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tests.records.conftest import WORDS, Types
from tunix_rt.files import read_json, write_json
from tunix_rt.runs.disk import clear, reclaimable
from tunix_rt.runs.folder import RunFolder


def made(name: str, state: str = "finished") -> RunFolder:
    """A run folder with a model and a checkpoint."""
    run = RunFolder(Path("runs") / name)
    for file in ("model/model.safetensors", "checkpoints/step_00000001/state.npz"):
        (run.path / file).parent.mkdir(parents=True, exist_ok=True)
        (run.path / file).write_bytes(bytes(100))
    run.begin()
    if state != "running":
        run.end("finished" if state == "finished" else "failed")
    return run


def aged(path: Path) -> Path:
    os.utime(path, (time.time() - 7200,) * 2)
    return path


def test_a_run_is_removed_when_nobody_needs_it(work: Path, types: Types) -> None:
    first, second = made("e/aaaaaaaaaaaa"), made("e/bbbbbbbbbbbb")
    second.record_stage("train", {"identity": "t", "state": "done", "folder": "../aaaaaaaaaaaa"})
    refused = types("rm", "e/aaaa", "--yes")
    assert refused.code == 2
    assert "e/aaaaaaaaaaaa: needed by e/bbbbbbbbbbbb (train); remove those first, or with --force" in refused.err
    assert first.path.exists()
    assert types("rm", "e/bbbb").code == 2, "no terminal to ask at"
    assert second.path.exists()
    done = types("rm", "e/bbbb", "--yes", "--json")
    assert (done.code, json.loads(done.out)["removed"]["e/bbbbbbbbbbbb"] >= 200) == (0, True)
    assert not second.path.exists()
    assert types("rm", "e/aaaa", "--yes").code == 0
    assert not first.path.exists()


def test_force_removes_what_others_need(work: Path, types: Types) -> None:
    first, second = made("e/aaaaaaaaaaaa"), made("e/bbbbbbbbbbbb")
    second.record_stage("train", {"identity": "t", "state": "done", "folder": "../aaaaaaaaaaaa"})
    assert types("rm", "e/aaaa", "--yes", "--force").code == 0
    assert not first.path.exists()


def test_a_run_at_work_is_never_removed(work: Path, types: Types) -> None:
    run = made("e/aaaaaaaaaaaa", "running")
    with run.locked():
        done = types("rm", "last", "--yes", "--force")
    assert (done.code, "in use by another process" in done.err) == (3, True)
    assert run.path.exists()


def test_what_can_go_and_what_cannot(work: Path) -> None:
    runs, data = Path("runs"), Path("data")
    finished, failed, running = (
        made("e/aaaaaaaaaaaa"),
        made("e/bbbbbbbbbbbb", "failed"),
        made("e/cccccccccccc", "running"),
    )
    (failed.path / "checkpoints/step_00000002").mkdir()
    (failed.path / "checkpoints/step_00000002/checkpoint.json").write_text("{}")
    for name, model in (("d/111111111111", "model"), ("d/222222222222", "../../models/x-444444444444")):
        write_json(data / name / "manifest.json", {"model": {"folder": model}})
    for name in ("x-444444444444", "x-555555555555"):
        (data / "models" / name).mkdir(parents=True)
        aged(data / "models" / name)
    for run in (finished, failed, running):
        write_json(run.data, {"folder": "data/d/222222222222"})
    (data / "raw" / "gsm8k").mkdir(parents=True)
    (data / "raw" / "gsm8k" / "train.jsonl").write_text("{}")
    (data / "raw" / "download.part").write_text("mine")
    aged(data / "raw" / "download.part")
    (data / "d" / "333333333333").mkdir()
    aged(data / "d" / "333333333333")
    (runs / "e" / "dddddddddddd").mkdir()
    aged(runs / "e" / "dddddddddddd")
    for file in (failed.path / "metrics.json.77.part", running.path / "metrics.json.78.part"):
        file.write_text("half")
        aged(file)
    (runs / "e" / "fresh.json.79.part").write_text("half")
    assert {(item.kind, str(item.path)) for item in reclaimable(runs, data)} == {
        ("checkpoints of a finished run", "runs/e/aaaaaaaaaaaa/checkpoints"),
        ("torn checkpoint", "runs/e/bbbbbbbbbbbb/checkpoints/step_00000001"),
        ("prepared data of no run", "data/d/111111111111"),
        ("torn prepared data", "data/d/333333333333"),
        ("converted model of no run", "data/models/x-555555555555"),
        ("torn run folder", "runs/e/dddddddddddd"),
        ("stale part file", "runs/e/bbbbbbbbbbbb/metrics.json.77.part"),
    }
    running.data.unlink()
    kinds = {item.kind for item in reclaimable(runs, data)}
    assert "prepared data of no run" not in kinds, "the running one may be about to say that it uses them"


def test_nothing_of_a_run_on_another_host_goes(work: Path) -> None:
    """Prevents: `gc` on a login node that takes the checkpoint which a compute node is writing."""
    run = made("e/aaaaaaaaaaaa", "running")
    write_json(work / "data/d/111111111111/manifest.json", {"model": {"folder": "model"}})
    write_json(run.data, {"record_version": 2, "folder": "../../../data/d/111111111111"})
    write_json(run.status_file, read_json(run.status_file) | {"host": "node7"})
    assert not reclaimable(Path("runs"), Path("data"))
    os.utime(run.status_file, (time.time() - 3600,) * 2)
    (torn,) = reclaimable(Path("runs"), Path("data"))
    assert torn.kind == "torn checkpoint", "it is killed: its data stays, for the same command goes on with it"


def test_what_somebody_has_begun_to_use_since_it_was_listed_stays(work: Path) -> None:
    """Prevents: a run that dies because its data went between the list and the removal."""
    runs, data = Path("runs"), Path("data")
    for name in ("d/111111111111", "d/222222222222"):
        write_json(data / name / "manifest.json", {"model": {"folder": "model"}})
    stopped = made("e/aaaaaaaaaaaa", "failed")
    listed = reclaimable(runs, data)
    assert len(listed) == 3
    write_json(stopped.data, {"record_version": 2, "folder": "../../../data/d/111111111111"})
    with stopped.locked(), FileLock(data / "d" / ".222222222222.lock"):
        assert clear(listed, runs, data) == []
    assert {item.path.name for item in clear(listed, runs, data)} == {"222222222222", "step_00000001"}
    assert (data / "d/111111111111").exists()


def test_part_folders_of_killed_preparations_go_but_not_of_one_at_work(work: Path) -> None:
    """Prevents: gigabytes beside the data that nothing lists; the data of a preparation that takes hours removed."""
    runs, data = Path("runs"), Path("data")
    stopped = made("e/aaaaaaaaaaaa", "failed")
    shutil.rmtree(stopped.path / "checkpoints")
    parts = [data / "d/111111111111.part", data / "models/x-222222222222.part", stopped.path / "model.part"]
    for part in parts:
        (part / "encoded").mkdir(parents=True)
        (part / "encoded" / "tokens.int32").write_bytes(bytes(9))
        assert reclaimable(runs, data) == [], "it may be at work"
        aged(part)
        (item,) = reclaimable(runs, data)
        assert (item.kind, item.path, item.bytes) == ("stale part file", part, 9)
        lock = {"d": data / "d/.111111111111.lock", "models": data / "models/x-222222222222.lock"}
        with FileLock(lock.get(part.parent.name, stopped.path / ".lock")):
            assert clear([item], runs, data) == [], "somebody writes it"
        assert clear([item], runs, data) == [item] and not part.exists()


@pytest.mark.slow
def test_gc_lists_then_removes_and_everything_still_works(finished: RunFolder, types: Types) -> None:
    unused = Path("data/mine/0123456789ab")
    shutil.copytree(finished.data_folder, unused)
    listed = types("gc", "--json")
    found = json.loads(listed.out)
    assert {Path(item["path"]) for item in found["items"]} == {finished.checkpoints, unused}
    assert found["bytes"] == sum(item["bytes"] for item in found["items"]) > 100_000
    assert unused.exists() and not found["removed"]
    assert f"{found['bytes']:,} bytes can go; --yes removes them" in types("gc").out
    assert types("gc", "--yes").code == 0
    assert not unused.exists() and not finished.checkpoints.exists()
    assert types("gc").out == "nothing can go\n"
    assert types("verify", "last").code == 0
    assert "nothing is run again" in types(*WORDS).err
