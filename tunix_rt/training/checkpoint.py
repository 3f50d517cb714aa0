"""Checkpoints on disk: whole only with their commit marker, newest whole one found, old ones rotated away.

`checkpoints/step_00000500/` holds what `Backend.save` writes, and `checkpoint.json`, written last: the
progress, what it belongs to, and the sha256 of every file. Knows no framework.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tunix_rt.errors import CheckpointError
from tunix_rt.files import read_json, sha256_file, write_json

MARKER = "checkpoint.json"


@dataclass(frozen=True, slots=True)
class Mark:
    """How far training has come."""

    step: int = 0
    """Updates done."""
    tokens: int = 0
    """Tokens of traces seen, padding not counted."""
    seconds: float = 0.0
    """Wall-clock seconds in the loop, over all sessions."""


@dataclass(slots=True)
class Checkpoints:
    """The checkpoints of one run. `belongs`: what must agree for a checkpoint to be continued."""

    folder: Path
    belongs: dict[str, str]
    keep: int
    _pending: tuple[Path, Mark, Future[None]] | None = field(default=None)

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self.folder / f"step_{step:08d}"

    def begin(self, step: int) -> Path:
        """An empty folder to save into; what an earlier, killed save left there is removed."""
        self.finish()
        path = self.path(step)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def commit_when_done(self, mark: Mark, saved: Future[None]) -> None:
        """Remember a save under way; `finish` (also called by the next `begin`) commits it."""
        self._pending = (self.path(mark.step), mark, saved)

    def finish(self) -> None:
        """Wait for the save under way and make it whole. Raises what the save raised (a full disk, say)."""
        if self._pending is None:
            return
        path, mark, saved = self._pending
        self._pending = None
        saved.result()
        files = {file.name: sha256_file(file) for file in sorted(path.iterdir())}
        write_json(path / MARKER, {"progress": asdict(mark), "belongs": self.belongs, "files": files})

    def rotate(self, best: int | None) -> None:
        """Remove whole checkpoints other than the newest `keep` and the best; a save under way is not counted."""
        steps = self.steps()
        stays = {*steps[-self.keep :], best}
        for step in steps:
            if step not in stays:
                (self.path(step) / MARKER).unlink()
                shutil.rmtree(self.path(step))

    def steps(self) -> list[int]:
        """Steps with a whole checkpoint, ascending."""
        return sorted(int(file.parent.name.removeprefix("step_")) for file in self.folder.glob(f"step_*/{MARKER}"))

    def newest(self) -> Mark | None:
        """Progress of the newest whole checkpoint, checked against its checksums; None where there is none.

        Raises CheckpointError where a file is damaged or the checkpoint belongs to another run.
        """
        steps = self.steps()
        return self.read(steps[-1]) if steps else None

    def read(self, step: int) -> Mark:
        """Progress of the checkpoint of `step`, checked. Raises CheckpointError."""
        path = self.path(step)
        record = read_json(path / MARKER)
        for name, value in record["belongs"].items():
            if self.belongs.get(name) != value:
                raise CheckpointError(
                    f"{path}: belongs to another run ({name} is {value}, expected {self.belongs.get(name)}); "
                    "remove the folder or start anew with run.new=true"
                )
        _verify(path, record["files"].items())
        return Mark(**record["progress"])


def _verify(path: Path, files: Iterable[tuple[str, str]]) -> None:
    for name, sha256 in files:
        if not (path / name).exists():
            raise CheckpointError(f"{path / name}: missing; remove {path} to go on from the checkpoint before it")
        if sha256_file(path / name) != sha256:
            raise CheckpointError(f"{path / name}: damaged; remove {path} to go on from the checkpoint before it")
