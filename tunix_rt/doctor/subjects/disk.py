"""The folders of runs and data, and that of temporary files: can they be written, and how much room is there?"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tunix_rt.doctor.finding import Finding, Place, existing, writable

LEAST_FREE = 1e9
"""Bytes below which a run of a small pretrained model, with its checkpoints, does not fit."""


def findings(place: Place) -> list[Finding]:
    """A line for each folder."""
    run = place.config.run
    folders = {"runs": ("run.root", Path(run.root)), "data": ("run.data", Path(run.data))}
    return [*(_folder(name, key, path) for name, (key, path) in folders.items()), _temporary()]


def _folder(name: str, key: str, path: Path) -> Finding:
    text = f"{path.absolute()}: {shutil.disk_usage(existing(path)).free / 1e9:.1f} GB free"
    if not writable(path):
        return Finding(name, "broken", f"{text}, and it cannot be written", f"{key}=FOLDER names another", stops=True)
    if shutil.disk_usage(existing(path)).free < LEAST_FREE:
        return Finding(name, "broken", text, f"python -m tunix_rt gc, or {key}=FOLDER on another disk")
    return Finding(name, "works", text)


def _temporary() -> Finding:
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        return Finding("temporary files", "broken", str(error.strerror), "export TMPDIR=FOLDER", stops=True)
    return Finding("temporary files", "works", f"{folder}: {shutil.disk_usage(folder).free / 1e9:.1f} GB free")
