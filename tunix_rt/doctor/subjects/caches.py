"""Compiled programs and hashes that are kept for the next run, and the hub's files."""

from __future__ import annotations

from pathlib import Path

from tunix_rt.doctor.finding import Finding, Place, writable
from tunix_rt.errors import MachineError
from tunix_rt.machine import cache_folder

OURS, HUB = "cache", "hub's cache"


def findings(place: Place) -> list[Finding]:
    """A line for each cache. A run works without, and computes again what they would keep."""
    try:
        ours = _folder(OURS, cache_folder(), "export XDG_CACHE_HOME=FOLDER")
    except MachineError as error:
        ours = Finding(OURS, "broken", str(error), "export HOME=FOLDER, or XDG_CACHE_HOME", stops=True)
    from huggingface_hub.constants import HF_HUB_CACHE

    return [ours, _folder(HUB, Path(HF_HUB_CACHE), "export HF_HOME=FOLDER")]


def _folder(name: str, path: Path, remedy: str) -> Finding:
    if not writable(path):
        return Finding(name, "broken", f"{path}: cannot be written, so nothing is kept there", remedy)
    if not path.exists():
        return Finding(name, "works", f"{path}: empty, made by the first run")
    sizes = [file.lstat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    return Finding(name, "works", f"{path}: {sum(sizes) / 1e9:.2f} GB in {len(sizes):,} files")
