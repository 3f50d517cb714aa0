"""What every export asks of a run first, and where its result goes."""

from __future__ import annotations

from pathlib import Path

from tunix_rt.errors import InputError
from tunix_rt.runs.folder import RunFolder


def check_finished(run: RunFolder) -> None:
    """Raises InputError if there is no result yet."""
    if run.status().get("state") != "finished":
        raise InputError(f"{run.name}: not finished, so there is no result to export; run its command again")


def place(run: RunFolder, chosen: Path | None, ending: str) -> Path:
    """Where the export goes: as chosen, else EXPERIMENT-IDENTITY and an ending, in the folder of the runs."""
    return chosen or run.root / f"{run.name.replace('/', '-')}{ending}"
