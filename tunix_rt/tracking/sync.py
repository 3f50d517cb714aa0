"""The sync process: it sends run folders to a store while they grow, and notices when a run dies.

    python -m tunix_rt.tracking.sync FOLDER [--watch]

FOLDER is that of a run or a sweep. During a run (`syncer.start`), at its end, or later by hand: always the same loop.
The training process only writes files and never imports a tracker. One process serves an entire sweep: the sweep's own
run and each member that requests it. Several stores have a thread each, so that none waits for another. If one is out
of reach, nothing is lost: it is tried again with growing delays while the run goes on, then for a minute after its end;
`tracking.log` says how to send the rest later.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import DataError, MachineError, TunixError
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.secrets import mask, masked_output
from tunix_rt.runs.sweep import SweepFolder
from tunix_rt.tracking import syncer
from tunix_rt.tracking.content import read_tracking
from tunix_rt.tracking.process import Loads
from tunix_rt.tracking.run import RunSync
from tunix_rt.tracking.state import FIRST, Folder, FolderSync, SyncReport, folder_at, report_on, status_of, together
from tunix_rt.tracking.store import StoreError, StoreRefused
from tunix_rt.tracking.sweep import SweepSync, asked_for

if TYPE_CHECKING:
    from filelock import FileLock

POLL = 2.0
"""Seconds between two reads of the logs."""
GLANCE = 0.2
"""Seconds between two checks of a run's status."""
LONGEST_DELAY = 60.0
"""Most seconds between two attempts at a store out of reach; the delay doubles from POLL. After the run's end: POLL."""
PATIENCE = 60.0
"""Seconds after the end of a run for which a store out of reach is still tried. No run waits for this."""
MEMBERS = 1.0
"""Seconds between two checks for requests of a sweep's members."""
LINGER = 30.0
"""Seconds for which this process stays alive for the next stage of a run that waits for one."""
NICENESS = 10
LOCK, LOCK_OF = ".tracking.lock", ".tracking.{}.lock"
"""Of the first store there was, and of the others."""


class Task:
    """Sends one folder to one store repeatedly, until its run or sweep has ended."""

    def __init__(self, sync: FolderSync, watch: bool, loads: Loads) -> None:
        self._sync, self._watch, self._loads = sync, watch, loads
        self._measured = watch and sync.tracking.system_metrics
        self._status = status_of(sync.folder)
        self._failures, self._due, self._deadline = 0, 0.0, float("inf")

    def step(self) -> SyncReport | None:
        """Send what is new, if it is time to; returns the report once everything was sent or given up."""
        status = self._sync.look()
        if self._measured and isinstance(self._sync.folder, RunFolder):
            self._loads.record(self._sync.folder)
        if status == self._status and time.monotonic() < self._due:
            return None
        self._status = status
        last = status != "running" or not self._watch
        try:
            self._sync.send(status)
            if last:
                return self._said(self._sync.close(status))
            if self._failures:
                self._failures, self._sync.state.trouble = 0, None
                self._sync.state.save()
                self._say("the store takes what it is sent again")
        except StoreError as error:
            self._deadline = min(self._deadline, time.monotonic() + PATIENCE) if last else float("inf")
            if isinstance(error, StoreRefused) or time.monotonic() >= self._deadline:
                return self._give_up(str(error))
            self._failures += 1
            self._sync.disconnect(str(error))
            if self._failures == 1:
                self._say(f"{error}; trying again, nothing is lost")
        except TunixError as error:
            return self._give_up(str(error))
        except Exception as error:  # our bug or a store's: the other tasks go on
            sys.stderr.write(traceback.format_exc())
            return self._give_up(f"{type(error).__name__}: {error}")
        self._due = time.monotonic() + (POLL if last else min(POLL * 2 ** min(self._failures, 10), LONGEST_DELAY))
        return None

    def _give_up(self, trouble: str) -> SyncReport:
        later = syncer.send_command(self._sync.folder.path, self._sync.tracking.uri)
        message = f"{trouble}; not everything was sent; send the rest later with: {later}"
        return self._said(self._sync.keep(self._status, False, message))

    def _said(self, report: SyncReport) -> SyncReport:
        self._say(report.message)
        return report

    def _say(self, line: str) -> None:
        with (self._sync.folder.path / syncer.LOG).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {mask(line)}\n")


def sync_folder(folder: Folder, tracking: TrackingConfig, watch: bool, directory: Path | None = None) -> SyncReport:
    """Send a run, or a sweep with its members; with `watch` until it has ended, else what is there now.

    Other processes wait for their turn. A store out of reach gives an incomplete report, not an error. Raises DataError
    if the folder is not a run.
    """
    if not tracking.stores:
        return SyncReport("running", None, True, "tracking=none: nothing is sent")
    if not folder.status():
        raise DataError(f"{folder.path}: not a run folder (no status.json)")
    send = partial(_sync_to, folder, tracking, watch=watch, directory=directory, loads=Loads())
    if len(tracking.stores) == 1:
        return send(*tracking.stores)
    with ThreadPoolExecutor(len(tracking.stores)) as side_by_side:
        return together(list(side_by_side.map(send, tracking.stores)))


def _sync_to(
    folder: Folder, tracking: TrackingConfig, kind: str, watch: bool, directory: Path | None, loads: Loads
) -> SyncReport:
    """The same for one store."""
    with lock_of(folder, kind):
        if isinstance(folder, SweepFolder):
            sweep = SweepSync(folder, tracking, kind)
            own, members = Task(sweep, watch, loads), _Members(sweep, watch, loads)
        else:
            own, members = Task(RunSync(folder, tracking, kind, directory), watch, loads), None
        while True:
            busy = members is not None and members.step()
            if not busy and (report := own.step()) is not None:
                return report
            time.sleep(GLANCE)


def lock_of(folder: Folder, kind: str) -> FileLock:
    """The lock that is held while a folder is sent to a store."""
    from filelock import FileLock

    return FileLock(folder.path / (LOCK if kind == FIRST else LOCK_OF.format(kind)))


class _Members:
    """Sends the members of a sweep that request it, each once per start."""

    def __init__(self, own: SweepSync, watch: bool, loads: Loads) -> None:
        self._own, self._watch, self._loads = own, watch, loads
        self._tasks: dict[RunFolder, tuple[Task, FileLock]] = {}
        self._taken: dict[RunFolder, int] = {}
        self._due = 0.0

    def step(self) -> bool:
        """Send what is new; returns whether a member is still being sent."""
        if time.monotonic() >= self._due or self._is_last():
            self._due = time.monotonic() + MEMBERS
            for run, asked in asked_for(self._own.folder):
                if run not in self._tasks and self._taken.get(run) != asked:
                    self._begin(run, asked)
        for run, (task, lock) in list(self._tasks.items()):
            if (report := task.step()) is not None:
                del self._tasks[run]
                lock.release()
                if not report.complete:
                    self._own.problems[run.name] = report.message
        return bool(self._tasks)

    def _is_last(self) -> bool:
        """Whether the sweep has ended: nobody asks any more, and who asked is sent before the sweep is reported."""
        return not self._tasks and status_of(self._own.folder) != "running"

    def _begin(self, run: RunFolder, asked: int) -> None:
        """Begin to send a member; if another process is sending it, this is tried again later."""
        from filelock import Timeout

        kind = self._own.target.kind
        lock = lock_of(run, kind)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return
        self._taken[run] = asked
        self._own.problems.pop(run.name, None)
        try:
            if (report := report_on(run, [kind])) is None or not report.complete:
                sync = RunSync(run, read_tracking(run), kind, parent=self._own.run_id)
                self._tasks[run] = Task(sync, self._watch, self._loads), lock
                return
        except TunixError as error:
            self._own.problems[run.name] = str(error)
        lock.release()


def serve(folder: Folder, directory: Path | None) -> SyncReport:
    """Send a folder until it has ended and every request made to this process meanwhile has been served."""
    tracking = read_tracking(folder)
    while True:
        report = sync_folder(folder, tracking, True, directory)
        until = time.monotonic() + LINGER  # for the next stage of a run that is made by several commands
        while status_of(folder) == "waiting" and time.monotonic() < until:
            time.sleep(GLANCE)
        if report_on(folder, tracking.stores) is None:  # the next stage began while this was sent
            continue
        syncer.retire(folder.path)
        asked = [run for run, _ in asked_for(folder)] if isinstance(folder, SweepFolder) else []
        if status_of(folder) != "running" and all(report_on(run, tracking.stores) for run in asked):
            return report
        syncer.announce(folder.path, psutil.Process(), tracking)  # the run could not know that this process was ending
        time.sleep(POLL)


def _yield_to_the_run() -> None:
    """Lower our priority; where Linux schedules sessions as groups, that of our session as well (`man 7 sched`)."""
    os.nice(NICENESS)
    group = Path("/proc/self/autogroup")
    if group.exists():
        with suppress(OSError):
            group.write_text(str(NICENESS))


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns 0 if everything was sent, else 3."""
    parser = argparse.ArgumentParser(prog="python -m tunix_rt.tracking.sync", description=__doc__)
    parser.add_argument("folder", type=Path, help="of a run or a sweep")
    parser.add_argument("--watch", action="store_true", help="go on until it has ended")
    parser.add_argument("--directory", type=Path, help="where a relative SQLite file is (default: here)")
    options = parser.parse_args(words)
    with masked_output():
        try:
            folder = folder_at(options.folder.resolve())
            if options.watch:
                _yield_to_the_run()
                report = serve(folder, options.directory)
            else:
                report = sync_folder(folder, read_tracking(folder), False, options.directory)
                sys.stdout.write(f"{report.message}\n")
        except TunixError as error:
            sys.stderr.write(f"{error}\n")
            return error.exit_code
        except Exception:  # our bug, in full; stderr is `tracking.log`
            sys.stderr.write(traceback.format_exc())
            return 1
        return 0 if report.complete else MachineError.exit_code


if __name__ == "__main__":
    sys.exit(main())
