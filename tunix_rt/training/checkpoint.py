"""Checkpoints on disk: complete once the last byte is written; damaged ones are skipped, old ones deleted.

`checkpoints/step_00000500/` holds what `Backend.save` writes, and `checkpoint.json`, written last by the thread
that wrote the rest: the progress, what it belongs to, and the sha256 of every file, taken from what was written.
A folder without it is a save that was killed. Independent of the framework.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tunix_rt import faults
from tunix_rt.errors import CheckpointError, DataError
from tunix_rt.files import copy_file, digest, read_json, sha256_file, sync_folder, write_json
from tunix_rt.terminal import warn

MARKER = "checkpoint.json"
VERSION = 2
"""Version 1 had no version number, `selected_step`, `ended` or sha256 of itself; training can resume from it."""
Hashes = dict[str, str]
"""File name → sha256."""


class DamagedCheckpoint(CheckpointError):
    """A file of a checkpoint is missing or differs from what was saved. The message names it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training has progressed."""

    step: int = 0
    """Number of updates done."""
    tokens: int = 0
    """Number of trace tokens seen, without padding."""
    seconds: float = 0.0
    """Wall-clock seconds in the loop, over all sessions."""
    selected_step: int | None = None
    """The step that becomes the model if no better one follows."""
    ended: str | None = None
    """Why training ended before its last step; None if it goes on or that step is done."""


@dataclass(slots=True)
class Checkpoints:
    """The checkpoints of one run. `belongs`: what must agree for training to resume from a checkpoint."""

    folder: Path
    belongs: dict[str, str]
    keep: int
    _pending: Future[None] | None = field(default=None)
    """The save in progress, done when it is committed."""

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self.folder / f"step_{step:08d}"

    def save(self, progress: Progress, write: Callable[[Path], Future[Hashes]]) -> None:
        """Start a save; `write` fills an empty folder (`Backend.save`). The thread that finishes it commits.

        Waits for the previous save if that is still in progress, and raises what it raised.
        """
        self.finish()
        path = self.path(progress.step)
        _remove(path)
        path.mkdir(parents=True, exist_ok=True)
        faults.point("made", path)
        committed: Future[None] = Future()

        def commit(written: Future[Hashes]) -> None:
            try:
                self._commit(progress, written.result())
            except BaseException as error:
                committed.set_exception(error)
            else:
                committed.set_result(None)

        written = write(path)
        self._pending = committed
        written.add_done_callback(commit)

    def _commit(self, progress: Progress, files: Hashes) -> None:
        """Complete a checkpoint whose files are written, and remove those that are no longer needed."""
        path = self.path(progress.step)
        record = {"version": VERSION, "progress": asdict(progress), "belongs": self.belongs, "files": files}
        sync_folder(path)
        write_json(path / MARKER, record | {"sha256": digest(record)})
        for folder in (path, self.folder, self.folder.parent):
            sync_folder(folder)
        self._rotate(progress)

    def _rotate(self, progress: Progress) -> None:
        """Keep the newest `keep` up to `progress` and the selected one. Removes incomplete ones, and those of later
        steps, which were skipped as damaged.
        """
        stays = {*[step for step in self.steps() if step <= progress.step][-self.keep :], progress.selected_step}
        for path in self.folder.glob("step_*"):
            if _step_of(path) not in stays:
                _remove(path)

    def check(self) -> None:
        """If the save in progress has ended, raise what it raised (a full disk, say). Does not wait."""
        if self._pending is not None and self._pending.done():
            self.finish()

    def finish(self) -> None:
        """Wait until the save in progress is committed. Raises what it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    @contextmanager
    def committing(self) -> Iterator[None]:
        """However the block ends, the save in progress is committed before it exits, or its error is reported."""
        try:
            yield
        except BaseException:
            try:
                self.finish()
            except Exception as error:
                warn(f"{self.folder}: the last save failed too ({error})")
            raise
        self.finish()

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        return sorted(_step_of(file.parent) for file in self.folder.glob(f"step_*/{MARKER}"))

    def newest(self, last_logged: int) -> Progress | None:
        """Progress of the newest checkpoint to resume from; None if there is none, so training starts from scratch.

        A damaged one is named in a warning, and the one before it is taken. So is one beyond `last_logged`, the last
        step of the log, which decides when to stop and which step is best. Raises CheckpointError if one belongs to
        another run.
        """
        for step in reversed(self.steps()):
            try:
                progress = self.read(step)
                if progress.selected_step not in (None, step):
                    self.read(progress.selected_step)
                if step <= last_logged:
                    return progress
                warn(f"{self.path(step)}: passed over: the log ends with step {last_logged}")
            except DamagedCheckpoint as error:
                warn(f"{error}; {self.path(step).name} is passed over")
        return None

    def read(self, step: int) -> Progress:
        """Progress of the checkpoint of `step`. Raises DamagedCheckpoint, CheckpointError (of another run)."""
        path = self.path(step)
        progress, belongs, files = _read_marker(path / MARKER, step)
        for name, value in belongs.items():
            if self.belongs.get(name) != value:
                raise CheckpointError(
                    f"{path}: belongs to another run ({name} is {value}, expected {self.belongs.get(name)}); "
                    "remove the folder or start anew with run.new=true"
                )
        for name, sha256 in files.items():
            _check(path / name, sha256, sha256_file)
        return progress

    def copy(self, step: int, target: Path, wanted: Callable[[str], bool]) -> None:
        """Copy the files of a checkpoint whose name is `wanted` into a folder.

        Raises DamagedCheckpoint if one is not what was saved.
        """
        path = self.path(step)
        for name, sha256 in _read_marker(path / MARKER, step)[2].items():
            if wanted(name):
                _check(path / name, sha256, lambda file: copy_file(file, target / file.name))


def _check(path: Path, sha256: str, read: Callable[[Path], str]) -> None:
    """Raises DamagedCheckpoint unless `read` returns the sha256 that was saved."""
    try:
        found = read(path)
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path}: missing") from None
    if found != sha256:
        raise DamagedCheckpoint(f"{path}: damaged (not the bytes that were saved)")


def _read_marker(file: Path, step: int) -> tuple[Progress, Hashes, Hashes]:
    """Returns progress, what it belongs to, and files. Raises DamagedCheckpoint."""
    try:
        record = dict(read_json(file))
        sha256 = record.pop("sha256", None)
        if record.get("version", 1) > 1 and sha256 != digest(record):
            raise ValueError
        progress = Progress(**record["progress"])
        if progress.step != step:
            raise ValueError
        return progress, dict(record["belongs"]), dict(record["files"])
    except (DataError, KeyError, TypeError, ValueError, AttributeError):
        raise DamagedCheckpoint(f"{file}: damaged (not what was saved)") from None


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _remove(folder: Path) -> None:
    """Removes the marker first, so that half a checkpoint is never mistaken for a complete one."""
    (folder / MARKER).unlink(missing_ok=True)
    faults.point("unmarked", folder)
    shutil.rmtree(folder, ignore_errors=True)
