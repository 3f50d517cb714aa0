"""How an error of one process is told to the leader, and raised there as if it were its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import Any

from tunix_rt import errors
from tunix_rt.errors import RunError, TunixError, explained
from tunix_rt.runs.secrets import mask_values, masked_traceback


def describe_error(error: Exception) -> dict[str, str]:
    """The error as plain data: with a traceback where it is our bug, or the framework's."""
    known = explained(error)
    if known is not None:
        return {"name": type(known).__name__, "text": str(known), "trace": ""}
    return {"name": "", "text": f"{type(error).__name__}: {error}", "trace": masked_traceback(error)}


def rebuild_error(described: Mapping[str, str], where: str) -> TunixError:
    """The error that `describe_error` described; `where`: in which process. A bug's traceback is a note of it."""
    kind: Any = getattr(errors, described["name"], None) if described["name"] else TunixError
    made = kind if isinstance(kind, type) and issubclass(kind, TunixError) else TunixError
    error = made(f"{described['text']} ({where})")
    error.add_note(described["trace"])
    return error


def show_notes(error: TunixError) -> None:
    """Print the traceback of a bug in another process."""
    sys.stderr.write(mask_values("".join(getattr(error, "__notes__", ()))))


def process_ended(where: str, code: int | None) -> TunixError:
    """A process that ended without a word; `code` as of subprocess, None if only its launcher knows it."""
    if code is None:
        how = "is gone: it was killed, or its machine or the network failed"
    elif code < 0:
        name = signal.Signals(-code).name
        how = f"was ended by {name}" + (" (by the system, if memory was short)" if code == -signal.SIGKILL else "")
    else:
        how = f"ended with exit code {code}, and what it printed says why"
    return RunError(f"{where} {how}; the same command goes on from what is saved")
