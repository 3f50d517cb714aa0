"""The sync process: it sends run folders to a store while they grow, and notices when a run dies.

    python -m tunix_rt.tracking.sync FOLDER [--watch]

FOLDER is that of a run or a sweep. During a run (`syncer.start`), at its end, or later by hand: always the same loop.
The training process only writes files and never imports a tracker. One process serves an entire sweep: the sweep's own
run and each member that requests it. If a store is out of reach, nothing is lost: it is tried again with growing delays
while the run goes on, then for a minute after its end; `tracking.log` says how to send the rest later.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import DataError, MachineError, TunixError
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.liveness import living
from tunix_rt.runs.secrets import mask, masked_output
from tunix_rt.runs.sweep import SweepFolder
from tunix_rt.tracking import syncer
from tunix_rt.tracking.content import read_tracking
from tunix_rt.tracking.process import LoadRecorder
from tunix_rt.tracking.run import RunSync
from tunix_rt.tracking.state import FolderSync, SyncReport, SyncState, session_of
from tunix_rt.tracking.store import NONE, StoreError, StoreRefused
from tunix_rt.tracking.sweep import SweepSync, asked_for, sweep_at, tracking_of

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
LOCK = ".tracking.lock"


class Task:
    """Sends one folder repeatedly, until its run or sweep has ended."""

    def __init__(
        self,
        sync: FolderSync,
        watch: bool,
        load: LoadRecorder | None = None,
        release: Callable[[], object] = lambda: None,
    ) -> None:
        self._sync, self._watch, self._load, self._release = sync, watch, load, release
        self._status = sync.status()
        self._failures, self._due, self._deadline = 0, 0.0, float("inf")

    @property
    def folder(self) -> Path:
        return self._sync.folder

    def step(self) -> SyncReport | None:
        """Send what is new, if it is time to; returns the report once everything was sent or given up."""
        status = self._sync.status()
        if self._load is not None:
            self._load.record()
        if status == self._status and time.monotonic() < self._due:
            return None
        self._status = status
        last = status != "running" or not self._watch
        try:
            self._sync.send(status)
            if last:
                return self._said(self._sync.close(status))
            self._succeeded()
        except StoreRefused as error:
            return self._give_up(str(error))
        except StoreError as error:
            self._deadline = min(self._deadline, time.monotonic() + PATIENCE) if last else float("inf")
            if time.monotonic() >= self._deadline:
                return self._give_up(str(error))
            self._failed(str(error))
        except TunixError as error:
            return self._give_up(str(error))
        except Exception as error:  # our bug or a store's: the other tasks go on
            sys.stderr.write(traceback.format_exc())
            return self._give_up(f"{type(error).__name__}: {error}")
        self._due = time.monotonic() + (POLL if last else min(POLL * 2 ** min(self._failures, 10), LONGEST_DELAY))
        return None

    def _succeeded(self) -> None:
        if self._failures:
            self._failures, self._sync.state.trouble = 0, None
            self._sync.state.save()
            self._say("the store takes what it is sent again")

    def _failed(self, trouble: str) -> None:
        self._failures += 1
        self._sync.disconnect(trouble)
        if self._failures == 1:
            self._say(f"{trouble}; trying again, nothing is lost")

    def _give_up(self, trouble: str) -> SyncReport:
        later = syncer.send_command(self.folder, self._sync.uri)
        message = f"{trouble}; not everything was sent; send the rest later with: {later}"
        return self._said(self._sync.keep(self._status, False, message))

    def _said(self, report: SyncReport) -> SyncReport:
        self._say(report.message)
        self._release()
        return report

    def _say(self, line: str) -> None:
        with (self.folder / syncer.LOG).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {mask(line)}\n")


def sync_run(run: RunFolder, tracking: TrackingConfig, watch: bool, directory: Path | None = None) -> SyncReport:
    """Send a run; with `watch` until it has ended, else what is there now. Other processes wait for their turn.

    A store out of reach gives an incomplete report, not an error. Raises DataError if the folder is not a run.
    """
    from filelock import FileLock

    if tracking.kind == NONE:
        return SyncReport("running", None, True, "tracking.kind is none: nothing is sent", "")
    if not run.status():
        raise DataError(f"{run.path}: not a run folder (no status.json)")
    with FileLock(run.path / LOCK):
        return _until_done([_task(RunSync(run, tracking, directory), run, watch)])


def sync_sweep(sweep: SweepFolder, watch: bool) -> SyncReport:
    """Send a sweep's own run and the members that request it; with `watch` until all of them have ended."""
    from filelock import FileLock

    with FileLock(sweep.path / LOCK):
        own = SweepSync(sweep)
        return _until_done([Task(own, watch)], _Members(own, sweep, watch))


def _until_done(tasks: list[Task], members: _Members | None = None) -> SyncReport:
    """Run the tasks and return the report of the first. The others are a sweep's members and finish before it."""
    while True:
        if members is not None:
            tasks += members.new({task.folder for task in tasks})
        for task in tasks[1:] or tasks[:1]:
            if (report := task.step()) is None:
                continue
            if task is tasks[0] or members is None:
                return report
            tasks.remove(task)
            members.ended(task.folder, report)
        time.sleep(GLANCE)


def _task(sync: RunSync, run: RunFolder, watch: bool, release: Callable[[], object] = lambda: None) -> Task:
    load = LoadRecorder(run) if sync.tracking.system_metrics and watch else None
    return Task(sync, watch, load, release)


class _Members:
    """The members of a sweep that are to be sent, each once per start."""

    def __init__(self, own: SweepSync, sweep: SweepFolder, watch: bool) -> None:
        self._own, self._sweep, self._watch = own, sweep, watch
        self._taken: dict[Path, int] = {}
        self._due = 0.0

    def new(self, busy: set[Path]) -> list[Task]:
        """Tasks for the members that requested it since the last call and are not being sent."""
        if time.monotonic() < self._due:
            return []
        self._due = time.monotonic() + MEMBERS
        waiting = [(run, asked) for run, asked in asked_for(self._sweep) if self._taken.get(run.path) != asked]
        return [task for run, asked in waiting if run.path not in busy for task in self._begun(run, asked)]

    def _begun(self, run: RunFolder, asked: int) -> list[Task]:
        """A task, or none: if another process is sending the run, it is checked again later."""
        from filelock import FileLock, Timeout

        lock = FileLock(run.path / LOCK)
        with suppress(Timeout):
            lock.acquire(timeout=0)
            self._taken[run.path] = asked
            try:
                if not _was_sent(run):
                    sync = RunSync(run, read_tracking(run), parent=self._own.run_id)
                    return [_task(sync, run, self._watch, lock.release)]
            except TunixError as error:
                self._own.unsent[run.path] = str(error)
            lock.release()
        return []

    def ended(self, folder: Path, report: SyncReport) -> None:
        """Record how sending a member ended."""
        self._own.unsent.pop(folder, None)
        if not report.complete:
            self._own.unsent[folder] = report.message


def _was_sent(run: RunFolder) -> bool:
    report = SyncState.load(run.path).report_of(session_of(run.status()))
    return report is not None and report.complete


def serve(folder: Path, directory: Path | None) -> SyncReport:
    """Send a folder until it has ended and every request made to this process meanwhile has been served."""
    sweep, run = sweep_at(folder), RunFolder(folder)
    tracking = read_tracking(run) if sweep is None else tracking_of(sweep)
    while True:
        if sweep is None:
            report = sync_run(run, tracking, True, directory)
            _linger(run)
        else:
            report = sync_sweep(sweep, True)
        syncer.retire(folder)
        if not (run.status()["state"] == "running" if sweep is None else _asked(sweep)):
            return report
        syncer.announce(folder, psutil.Process(), tracking)  # the run could not know that this process was ending
        time.sleep(POLL)


def _linger(run: RunFolder) -> None:
    """Wait for the next stage of a run that is made by several commands."""
    until = time.monotonic() + LINGER
    while run.status()["state"] == "waiting" and time.monotonic() < until:
        time.sleep(GLANCE)


def _asked(sweep: SweepFolder) -> bool:
    """Whether the sweep runs again, or one of its members has not been sent."""
    runs = [run for run, _ in asked_for(sweep)]
    reports = [SyncState.load(run.path).report_of(session_of(run.status())) for run in runs]
    return None in reports or (sweep.status()["state"] == "running" and living(sweep.status()) is not None)


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
        return _main(options.folder.resolve(), options.watch, options.directory)


def _main(folder: Path, watch: bool, directory: Path | None) -> int:
    try:
        if watch:
            _yield_to_the_run()
            report = serve(folder, directory)
        elif (sweep := sweep_at(folder)) is not None:
            report = sync_sweep(sweep, False)
        else:
            report = sync_run(RunFolder(folder), read_tracking(RunFolder(folder)), False, directory)
    except TunixError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except Exception:  # our bug, in full; stderr is `tracking.log`
        sys.stderr.write(traceback.format_exc())
        return 1
    if not watch:
        sys.stdout.write(f"{report.message}\n")
    return 0 if report.complete else MachineError.exit_code


if __name__ == "__main__":
    sys.exit(main())
