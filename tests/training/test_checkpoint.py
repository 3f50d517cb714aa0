"""Checkpoints: nothing half-written is taken for whole, damage is named, the right ones stay."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from tunix_rt.errors import CheckpointError
from tunix_rt.training.checkpoint import Checkpoints, Mark


def save(checkpoints: Checkpoints, step: int) -> None:
    folder = checkpoints.begin(step)
    (folder / "model.safetensors").write_bytes(b"weights of %d" % step)
    done: Future[None] = Future()
    done.set_result(None)
    checkpoints.commit_when_done(Mark(step, step * 10, 1.5), done)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, {"identity": "a"}, keep=2)


def test_the_newest_whole_one_is_found_with_its_progress(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest() is None
    save(checkpoints, 1)
    save(checkpoints, 2)
    checkpoints.finish()
    assert checkpoints.newest() == Mark(2, 20, 1.5)


def test_a_save_that_was_killed_is_not_taken_for_whole(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    folder = checkpoints.begin(2)
    (folder / "model.safetensors").write_bytes(b"half")
    assert checkpoints.newest() == Mark(1, 10, 1.5)
    save(checkpoints, 2)
    checkpoints.finish()
    assert checkpoints.newest() == Mark(2, 20, 1.5)


def test_a_failed_save_is_raised_and_leaves_no_marker(checkpoints: Checkpoints) -> None:
    folder = checkpoints.begin(1)
    failed: Future[None] = Future()
    failed.set_exception(OSError(28, "No space left on device"))
    checkpoints.commit_when_done(Mark(1), failed)
    with pytest.raises(OSError, match="No space"):
        checkpoints.finish()
    assert not (folder / "checkpoint.json").exists()
    assert checkpoints.newest() is None


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_damage_is_named_with_the_way_out(checkpoints: Checkpoints, damage: str) -> None:
    save(checkpoints, 1)
    checkpoints.finish()
    file = checkpoints.path(1) / "model.safetensors"
    if damage == "flip":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    else:
        file.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: (damaged|missing); remove"):
        checkpoints.newest()


def test_a_checkpoint_of_another_run_is_refused(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    checkpoints.finish()
    with pytest.raises(CheckpointError, match="belongs to another run"):
        Checkpoints(checkpoints.folder, {"identity": "b"}, keep=2).newest()


def test_rotation_keeps_the_newest_and_the_best(checkpoints: Checkpoints) -> None:
    for step in (1, 2, 3, 4, 5):
        save(checkpoints, step)
    checkpoints.finish()
    checkpoints.rotate(best=2)
    assert checkpoints.steps() == [2, 4, 5]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "step_00000002",
        "step_00000004",
        "step_00000005",
    ]
