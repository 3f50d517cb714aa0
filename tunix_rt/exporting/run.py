"""What an export is called where there is none, and where it goes."""

from __future__ import annotations

from pathlib import Path

from tunix_rt.errors import InputError
from tunix_rt.runs.folder import RunFolder

TO_EXPORT = "result to export"


def place_for(run: RunFolder, chosen: Path | None, ending: str) -> Path:
    """Where the export goes: as chosen, else EXPERIMENT-IDENTITY and an ending, in the folder of the runs.

    Raises InputError if something is there.
    """
    found = chosen or run.root / f"{run.name.replace('/', '-')}{ending}"
    if found.exists():
        raise InputError(f"{found}: exists already; remove it, or name another with --output")
    return found
