"""Checkpoints: whole with their last byte, nothing half-written or damaged is continued, the right ones stay."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path

import pytest

from tunix_rt.errors import CheckpointError
from tunix_rt.files import sha256_bytes
from tunix_rt.training.checkpoint import Checkpoints, DamagedCheckpoint, Progress

ANY = 10**9
"""A log that knows every step."""


def write(folder: Path) -> Future[dict[str, str]]:
    """What `Backend.save` does, at once."""
    data = b"weights of " + folder.name.encode()
    (folder / "model.safetensors").write_bytes(data)
    done: Future[dict[str, str]] = Future()
    done.set_result({"model.safetensors": sha256_bytes(data)})
    return done


def save(checkpoints: Checkpoints, step: int, best: int | None = None) -> Progress:
    progress = Progress(step, step * 10, 1.5, selected_step=best or step)
    checkpoints.save(progress, write)
    return progress


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", {"identity": "a"}, keep=2)


def test_one_is_whole_as_soon_as_its_last_byte_is_down(checkpoints: Checkpoints) -> None:
    """Prevents: a checkpoint that only the next save, or a polite end, makes whole."""
    assert checkpoints.newest(ANY) is None
    save(checkpoints, 1)
    done: Future[dict[str, str]] = Future()
    checkpoints.save(Progress(2, 20, selected_step=2), lambda folder: done)
    assert checkpoints.newest(ANY) == Progress(1, 10, 1.5, selected_step=1)
    (checkpoints.path(2) / "model.safetensors").write_bytes(b"x")
    done.set_result({"model.safetensors": sha256_bytes(b"x")})
    assert checkpoints.newest(ANY) == Progress(2, 20, selected_step=2)


def test_what_a_kill_left_of_a_save_is_not_continued_and_goes_with_the_next(checkpoints: Checkpoints) -> None:
    first = save(checkpoints, 1)
    checkpoints.save(Progress(2), lambda folder: Future())
    (checkpoints.path(2) / "model.safetensors").write_bytes(b"half")
    again = Checkpoints(checkpoints.folder, checkpoints.belongs, keep=2)
    assert again.newest(ANY) == first
    third = save(again, 3)
    assert again.newest(ANY) == third
    assert sorted(path.name for path in again.folder.iterdir()) == ["step_00000001", "step_00000003"]


def test_a_failed_save_is_raised_at_the_next_step_and_leaves_no_marker(checkpoints: Checkpoints) -> None:
    """Prevents: a full disk that is heard of when the next checkpoint is due."""
    running: Future[dict[str, str]] = Future()
    checkpoints.save(Progress(1), lambda folder: running)
    checkpoints.check()
    running.set_exception(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        checkpoints.check()
    assert not (checkpoints.path(1) / "checkpoint.json").exists()
    assert checkpoints.newest(ANY) is None


def test_an_error_does_not_hide_that_the_last_save_failed(
    checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    failed: Future[dict[str, str]] = Future()
    failed.set_exception(OSError(28, "No space left on device"))
    with pytest.raises(KeyError), checkpoints.committing():
        checkpoints.save(Progress(1), lambda folder: failed)
        raise KeyError
    assert "the last save failed too ([Errno 28] No space" in capsys.readouterr().err


DAMAGES = {
    "flipped": ("model.safetensors", lambda data: data[:-1] + b"x"),
    "cut": ("model.safetensors", lambda data: data[:3]),
    "removed": ("model.safetensors", None),
    "marker cut": ("checkpoint.json", lambda data: data[: len(data) // 2]),
    "marker empty": ("checkpoint.json", lambda data: b""),
    "marker of another shape": ("checkpoint.json", lambda data: b"[1]"),
    "step edited": ("checkpoint.json", lambda data: data.replace(b'"step": 3', b'"step": 2')),
    "tokens edited": ("checkpoint.json", lambda data: data.replace(b'"tokens": 30', b'"tokens": 31')),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_is_taken(
    checkpoints: Checkpoints, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents: a run that nobody watches, and that stays stuck until somebody removes a folder."""
    name, change = DAMAGES[damage]
    second = save(checkpoints, 2)
    save(checkpoints, 3)
    for step, expected in ((3, second), (2, None)):
        file = checkpoints.path(step) / name
        if change is None:
            file.unlink()
        else:
            changed = change(file.read_bytes())
            file.write_bytes(changed if changed != file.read_bytes() else b"")
        assert checkpoints.newest(ANY) == expected
        said = capsys.readouterr().err
        assert f"warning: {file}: {'missing' if change is None else 'damaged'}" in said
        assert f"{file.parent.name} is passed over" in said


def test_one_whose_best_checkpoint_is_damaged_is_passed_over(checkpoints: Checkpoints) -> None:
    """Prevents: training to the end, and no model there."""
    save(checkpoints, 1)
    save(checkpoints, 2, best=2)
    save(checkpoints, 3, best=2)
    (checkpoints.path(2) / "model.safetensors").write_bytes(b"")
    assert checkpoints.newest(ANY) is None
    assert checkpoints.steps() == [2, 3]


def test_the_model_is_copied_from_bytes_that_are_those_saved(checkpoints: Checkpoints, tmp_path: Path) -> None:
    save(checkpoints, 1)
    checkpoints.copy(1, tmp_path, lambda name: True)
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights of step_00000001"
    (checkpoints.path(1) / "model.safetensors").write_bytes(b"others")
    with pytest.raises(DamagedCheckpoint, match=r"model\.safetensors: damaged"):
        checkpoints.copy(1, tmp_path, lambda name: True)


def test_the_log_must_know_what_a_checkpoint_follows_from(checkpoints: Checkpoints) -> None:
    """Prevents: a run that has lost half of its log, and stops elsewhere or selects another step than it would have."""
    second, third = save(checkpoints, 2), save(checkpoints, 3)
    assert [checkpoints.newest(last) for last in (4, 3, 2, 1)] == [third, third, second, None]


def test_one_of_the_first_version_is_continued(checkpoints: Checkpoints) -> None:
    save(checkpoints, 7)
    old = {
        "progress": {"step": 7, "tokens": 70, "seconds": 1.5},
        "belongs": {"identity": "a"},
        "files": {"model.safetensors": sha256_bytes(b"weights of step_00000007")},
    }
    (checkpoints.path(7) / "checkpoint.json").write_text(json.dumps(old))
    assert checkpoints.newest(ANY) == Progress(7, 70, 1.5)


def test_a_checkpoint_of_another_run_is_refused(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    with pytest.raises(CheckpointError, match="belongs to another run"):
        Checkpoints(checkpoints.folder, {"identity": "b"}, keep=2).newest(ANY)


def test_rotation_keeps_the_newest_and_the_best(checkpoints: Checkpoints) -> None:
    for step in (1, 2, 3, 4, 5):
        save(checkpoints, step, best=min(step, 2))
    assert checkpoints.steps() == [2, 4, 5]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "step_00000002",
        "step_00000004",
        "step_00000005",
    ]


def test_what_was_passed_over_never_pushes_out_what_training_does_since(tmp_path: Path) -> None:
    """Prevents: a damaged checkpoint of step 9 that counts as the newest one, so that step 4 is removed at once."""
    checkpoints = Checkpoints(tmp_path, {}, keep=1)
    save(checkpoints, 9)
    save(checkpoints, 4)
    assert checkpoints.steps() == [4]
