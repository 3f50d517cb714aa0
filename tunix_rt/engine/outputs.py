"""The outputs of a stage on disk: synced and hashed before they are recorded, compared before they are trusted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tunix_rt.checked import Seal, damage, seal
from tunix_rt.errors import InputError
from tunix_rt.files import sync_file, sync_folder
from tunix_rt.runs.folder import RunFolder


def sealed(place: Path, names: Sequence[str]) -> dict[str, Seal]:
    """Size and sha256 of each file that a stage left below `place`, after syncing all of them to disk."""
    files = sorted({file for name in names for file in _files(place / name)})
    for file in files:
        sync_file(file)
    for folder in sorted({folder for file in files for folder in (file.parent, place)}):
        sync_folder(folder)
    return seal(place, [file.relative_to(place).as_posix() for file in files])


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    elif path.exists():
        yield path


def problem_of(run: RunFolder, stage: str, full: bool = False) -> str | None:
    """Why the recorded outputs of a stage are no longer there, in words; None if they are. `full`: read every byte."""
    try:
        place = run.place(stage)
    except InputError as error:  # in another run, which was removed or did something else since
        return str(error)
    return next(iter(damage(place, run.stages()[stage].get("outputs", {}), full)), None)


def is_finished(run: RunFolder, chain: Mapping[str, str]) -> bool:
    """Whether every stage of these identities is done, and its outputs are still there and unchanged."""
    done = all(run.is_done(stage, identity) for stage, identity in chain.items())
    return done and all(problem_of(run, stage) is None for stage in chain)


def discard_damaged(run: RunFolder, stage: str) -> None:
    """Remove damaged files of a stage, so that they are written again.

    Steps that a log has lost are logged again only if they are trained again: then checkpoints are removed too.
    """
    record = run.stages().get(stage, {})
    for name, was in record.get("outputs", {}).items() if "folder" not in record else ():
        if damage(run.path, {name: was}):
            (run.path / name).unlink(missing_ok=True)
            if stage == "train" and name.endswith(".jsonl"):
                shutil.rmtree(run.checkpoints, ignore_errors=True)
