"""The run's side of tracking: start a sync process, or find one that already serves it, and report how it went.

A run never waits for a tracker longer than `tracking.wait_seconds`, and not at all after a signal: the sync process is
separate and goes on. Imports no tracker.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import DataError, Interrupted
from tunix_rt.files import JsonObject, read_json, write_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.liveness import living, named
from tunix_rt.runs.secrets import URI_VARIABLE, is_masked, mask, mask_values
from tunix_rt.runs.sweep import SweepFolder, sweep_of
from tunix_rt.terminal import say, warn
from tunix_rt.tracking.state import SyncReport, SyncState, folder_at, report_on
from tunix_rt.tracking.store import check, target
from tunix_rt.tracking.sweep import ask_for

LOG = "tracking.log"
SERVED = "tracking_process.json"
"""File in a run or sweep folder that names the sync process serving it."""
GLANCE = 0.05
QUIET = 0.5
"""Seconds of waiting for the sync process before a message about it is shown."""
COPY_PATIENCE = 600.0
"""Seconds to wait in a copy of the checkout: DVC removes that of a queued experiment as soon as the work is done.
A store out of reach ends the sync process sooner by itself; a busy machine starves a process of low priority longer."""
UNWANTED = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
"""Environment variables that would override where the config sends a run."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class _Detached(subprocess.Popen[bytes]):
    """A process that may outlive this one without a ResourceWarning from Python."""

    def __del__(self) -> None:
        pass


_children: list[_Detached] = []
"""Processes started here and not reaped yet; those that have ended are reaped when the next one starts."""


@dataclass(frozen=True, slots=True)
class Syncer:
    """The sync process of a folder, as seen by the run (or sweep) that works there."""

    folder: Path
    tracking: TrackingConfig
    process: _Detached | None = None
    """The process, if started by this object's creator; None if it was already running."""
    patience: float = 0.0
    """Least seconds to wait, whatever is declared: for a folder that is removed when the work is done."""
    waits: bool = True
    """False if nothing is sent, and for a member of a sweep: the sweep waits for all of them."""

    def wait(self, seconds: float) -> SyncReport | None:
        """Its report when it is done; None if it is still busy after `seconds`, or nothing is sent."""
        until = time.monotonic() + seconds
        while self.waits:
            gone = served_by(self.folder) is None if self.process is None else self.process.poll() is not None
            report = report_on(folder_at(self.folder), self.tracking.stores)
            if report is None and gone:
                report = self._lost()
            if report is not None or time.monotonic() >= until:
                return report
            time.sleep(min(GLANCE, seconds))
        return None

    def _lost(self) -> SyncReport:
        ended = "" if self.process is None else f" with exit code {self.process.returncode}"
        later = send_command(self.folder, self.tracking.uri)
        message = f"the sync process ended{ended}; see {self.folder / LOG}; send later with: {later}"
        return SyncReport("running", None, False, message)

    def finish(self) -> None:
        """At the end of the work: wait for a limited time, and report how it went."""
        seconds = max(self.tracking.wait_seconds, self.patience)
        report = self.wait(min(QUIET, seconds))
        if report is None and self.waits and seconds > QUIET:
            where = ", ".join(mask(target(self.tracking, kind).uri) for kind in self.tracking.stores)
            say(f"tracking: sending the rest to {where} (waiting {seconds:g} s at most)")
            report = self.wait(seconds - QUIET)
        if report is None:
            self.leave()
        elif not report.complete:
            warn(f"tracking: {report.message}")

    def leave(self) -> None:
        """Report, without waiting, that the sync process goes on by itself and which log has the outcome."""
        if not self.waits or report_on(folder_at(self.folder), self.tracking.stores) is not None:
            return
        log = os.path.relpath(self.folder / LOG)
        line = f"what is left is sent by a process of its own; the last line of {log} says how it went"
        found = [SyncState.load(self.folder, kind).trouble for kind in self.tracking.stores]
        if troubles := [trouble for trouble in found if trouble is not None]:
            warn(f"tracking: {'; '.join(troubles)}; {line}")
        else:
            say(f"tracking: {line}")


@contextmanager
def syncing(
    folder: Path, tracking: TrackingConfig, directory: Path | None = None, now: bool = True, last: bool = True
) -> Iterator[None]:
    """Run the block with a sync process serving the folder; the block must also record the run's end. See `start`.

    If several commands make one run, only the `last` waits. Without `now`, a process starts only if the block fails.
    """
    syncer = start(folder, tracking, directory) if now else None
    try:
        yield
    except Interrupted:
        (syncer or start(folder, tracking, directory)).leave()
        raise
    except Exception:
        (syncer or start(folder, tracking, directory)).finish()
        raise
    if syncer is not None and last:
        syncer.finish()


def warn_of_trouble(folder: Path, tracking: TrackingConfig, directory: Path | None = None) -> None:
    """Before the first step: warn if the store is out of reach just now. Raises what `store.check` raises.

    For a member of a sweep that is already served the check is skipped.
    """
    sweep = _sweep_above(folder)
    for trouble in check(tracking, directory) if sweep is None or served_by(sweep.path) is None else ():
        warn(f"{trouble}; the run goes on, and what it writes is sent as soon as the server answers")


def start(folder: Path, tracking: TrackingConfig, directory: Path | None = None) -> Syncer:
    """Get a sync process to serve a run or sweep that has recorded its start (`status.json`, `sweep.json`).

    That of the sweep that the run is a member of, if there is one on this host; else one that already serves the
    folder; else a new one, in its own session, so that Ctrl-C ends only the run. A relative SQLite file is resolved
    against `directory` (default: the working directory).
    """
    folder = folder.resolve()
    sweep = _sweep_above(folder)
    if not tracking.stores or (sweep is not None and _handed_over(sweep, folder, tracking)):
        return Syncer(folder, tracking, waits=False)
    patience = 0.0 if directory is None or directory.resolve() == Path.cwd() else COPY_PATIENCE
    if _serves(folder, tracking) and not is_masked(_shown(tracking)):
        return Syncer(folder, tracking, patience=patience)
    command = [sys.executable, "-m", "tunix_rt.tracking.sync", str(folder), "--watch"]
    command += ["--directory", str(directory)] if directory else []
    _children[:] = [child for child in _children if child.poll() is None]
    kept = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    variables = kept | ONE_THREAD | {URI_VARIABLE: tracking.uri}  # with its password, which no file has
    with (folder / LOG).open("ab") as log:
        process = _Detached(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=variables
        )
    _children.append(process)
    announce(folder, psutil.Process(process.pid), tracking)
    return Syncer(folder, tracking, process, patience)


def _sweep_above(folder: Path) -> SweepFolder | None:
    """The sweep that the run in this folder is a member of; None for other runs, and for a sweep's folder."""
    found = folder_at(folder)
    return sweep_of(found) if isinstance(found, RunFolder) else None


def _handed_over(sweep: SweepFolder, folder: Path, tracking: TrackingConfig) -> bool:
    """Hand the run to the sweep's sync process; False if none runs on this host for the same store."""
    if not _serves(sweep.path, tracking):
        return False
    request = ask_for(sweep, folder)
    if served_by(sweep.path) is not None:  # it checks for requests once more after it has retired
        return True
    request.unlink()
    return False


def served_by(folder: Path) -> JsonObject | None:
    """The record of the sync process that serves a folder; None if there is none on this host."""
    try:
        found = dict(read_json(folder / SERVED))
    except DataError:  # there is none
        return None
    return found if living(found) is not None else None


def _serves(folder: Path, tracking: TrackingConfig) -> bool:
    found = served_by(folder)
    return found is not None and found["tracking"] == _shown(tracking)


def announce(folder: Path, process: psutil.Process, tracking: TrackingConfig) -> None:
    """Record that a sync process serves a folder."""
    write_json(folder / SERVED, named(process) | {"tracking": _shown(tracking)})


def retire(folder: Path) -> None:
    """Record that this process no longer serves a folder; the caller then has to check for late requests."""
    found = served_by(folder)
    if found is not None and found["pid"] == os.getpid():
        (folder / SERVED).unlink(missing_ok=True)


def _shown(tracking: TrackingConfig) -> JsonObject:
    return dict(mask_values(asdict(tracking)))


def send_command(folder: Path, uri: str) -> str:
    """The command that sends the rest of a run or sweep later, from any directory; a password must be given again."""
    command = shlex.join([sys.executable, "-m", "tunix_rt.tracking.sync", str(folder.resolve())])
    if (shown := mask(uri)) == uri:
        return command
    return f"{URI_VARIABLE}={shlex.quote(shown)} {command} (with the password in the place of ***)"
