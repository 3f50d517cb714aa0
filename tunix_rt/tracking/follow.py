"""A second process that reads a run folder, sends the new to MLflow once, and notices when the first dies.

    python -m tunix_rt.tracking.follow RUN_FOLDER [--watch]

Beside a run (`spawn`), at its end, or later by hand: always the same loop. The training process only writes
files and never imports MLflow. A store that is down loses nothing: the follower tries again, later and later,
while the run goes on; after its end it gives up in bounded time, and `tracking.log` says how to send it then.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import DataError, MachineError, TunixError
from tunix_rt.files import append_line, read_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.secrets import mask
from tunix_rt.tracking.content import URI_VARIABLE, read_tracking
from tunix_rt.tracking.mlflow import Status, StoreError, store_errors
from tunix_rt.tracking.process import TrainingProcess
from tunix_rt.tracking.sender import STATE, FollowReport, Sender
from tunix_rt.tracking.tail import SYSTEM, whole_lines

LOG = "tracking.log"
POLL = 2.0
"""Seconds between two looks at the logs."""
GLANCE = 0.2
"""Seconds between two looks at whether `status.json` changed, which is one system call."""
SAMPLE = 5.0
"""Seconds between two samples of the training process's load."""
LONGEST_DELAY = 60.0
"""Seconds between two tries of a store that is down; they double from POLL on. After the run's end: POLL again."""
NICENESS = 10
PATIENCE = 0.5
"""Share of `tracking.wait_seconds` after which a follower gives up, so that the run still hears why."""
ENDS: dict[str, Status] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "waiting": "SCHEDULED",
    "killed": "KILLED",
}
UNWANTED = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
"""Variables that would send a run elsewhere than its config says."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Follower:
    """A spawned follower; of `tracking.kind: none` there is no process."""

    run_folder: Path
    process: subprocess.Popen[bytes] | None

    def wait(self, seconds: float) -> FollowReport | None:
        """Its report when it is done; None where it is still busy after `seconds`, or there is none."""
        if self.process is None:
            return None
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        state = self.run_folder / STATE
        report = read_json(state).get("report") if state.exists() else None
        if report is None:
            message = f"the follower ended with exit code {code}; see {self.run_folder / LOG}"
            return FollowReport(
                "RUNNING", None, {}, {}, False, f"{message}; send later with: {send_command(self.run_folder)}"
            )
        return FollowReport(**report)


def spawn(run_folder: Path, tracking: TrackingConfig, directory: Path | None = None) -> Follower:
    """Start a follower of a run that has written its `config.yaml` and `status.json`.

    A relative SQLite file is taken from `directory`, which is the working directory where it is not given.

    It has a session of its own, so that Ctrl-C in the terminal ends the run only, and yields to the run.
    """
    if tracking.kind == "none":
        return Follower(run_folder, None)
    command = [sys.executable, "-m", "tunix_rt.tracking.follow", str(run_folder.resolve()), "--watch"]
    command += ["--directory", str(directory)] if directory else []
    with (run_folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=surroundings(tracking.uri),
        )
    return Follower(run_folder, process)


def surroundings(uri: str) -> dict[str, str]:
    """The environment variables of a process that talks to MLflow; the files have `uri` without its password."""
    kept = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    return kept | ONE_THREAD | {URI_VARIABLE: uri}


def send_command(run_folder: Path) -> str:
    """What sends the rest of a run later, from any directory."""
    return shlex.join([sys.executable, "-m", "tunix_rt.tracking.follow", str(run_folder.resolve())])


def follow(run_folder: Path, tracking: TrackingConfig, watch: bool, directory: Path | None = None) -> FollowReport:
    """Send a run; with `watch` until it has ended, else what is there now. Others wait their turn.

    Raises DataError where the folder is no run. A store out of reach is no error but an incomplete report.
    """
    from filelock import FileLock

    run = RunFolder(run_folder.resolve())
    if tracking.kind == "none":
        return FollowReport("RUNNING", None, {}, {}, True, "tracking.kind is none: nothing is sent")
    if not run.status():
        raise DataError(f"{run.path}: not a run folder (no status.json)")
    with FileLock(run.path / ".tracking.lock"):
        return _loop(run, Sender(run, tracking, partial(_log, run.path / LOG), directory), tracking, watch)


def _loop(run: RunFolder, sender: Sender, tracking: TrackingConfig, watch: bool) -> FollowReport:
    watcher = _Watcher(run, tracking.system_metrics and watch)
    failures, deadline = 0, float("inf")
    while True:
        watcher.sample()
        status = watcher.status()
        last = status != "RUNNING" or not watch
        try:
            with store_errors(sender.uri):
                sender.send(status)
                if last:
                    return sender.close(status)
            if failures:
                sender.say("the store takes what it is sent again")
            failures = 0
        except StoreError as error:
            failures += 1
            sender.disconnect()
            deadline = min(deadline, time.monotonic() + PATIENCE * tracking.wait_seconds) if last else float("inf")
            if time.monotonic() >= deadline:
                return sender.keep(_given_up(run, status, error))
            if failures == 1:
                sender.say(f"{error}; trying again, nothing is lost")
        watcher.pause(POLL if last else min(POLL * 2 ** min(failures, 10), LONGEST_DELAY), status)


def _given_up(run: RunFolder, status: Status, error: StoreError) -> FollowReport:
    message = f"{error}; not everything was sent; send the rest later with: {send_command(run.path)}"
    return FollowReport(status, None, {}, {}, False, message)


class _Watcher:
    """Looks at the training process between two sends, and records its load in `system.jsonl` if asked to."""

    def __init__(self, run: RunFolder, sampling: bool) -> None:
        self._run, self._sampling = run, sampling
        self._process = TrainingProcess.of(run.status())
        self._next_sample = time.monotonic()
        first = next((record for _, record in whole_lines(run.path / SYSTEM, 0)), None)
        begun = first["time"] - first["step"] if first else run.status()["started"]
        self._begun = float(begun)

    def status(self) -> Status:
        """RUNNING, or how the run ended. Gone without a word is KILLED."""
        state = self._state()
        if state == "killed":
            state = self._state()  # its last word may have come between the reading of the file and the look at it
        return ENDS.get(state, "RUNNING")

    def _state(self) -> str:
        status = self._run.status()
        if status["state"] != "running":
            return str(status["state"])
        if status["pid"] != self._process.pid:
            self._process = TrainingProcess.of(status)
        return "running" if self._process.alive() else "killed"

    def pause(self, seconds: float, status: Status) -> None:
        """Wait, but no longer than the run has this status; sample meanwhile."""
        file = self._run.path / "status.json"
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self.status() == status:
            look = min(time.monotonic() + POLL, until)
            self.sample()
            seen = file.stat().st_mtime_ns
            while time.monotonic() < look and file.stat().st_mtime_ns == seen:
                time.sleep(min(GLANCE, left))

    def sample(self) -> None:
        """Record the load, where it is time to."""
        if self._sampling and time.monotonic() >= self._next_sample:
            self._next_sample = time.monotonic() + SAMPLE
            if values := self._process.sample():
                now = time.time()
                append_line(self._run.path / SYSTEM, {"step": round(now - self._begun), "time": now, **values})


def _log(file: Path, line: str) -> None:
    with file.open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {mask(line)}\n")


def _yield_to_the_run() -> None:
    """Be nice; where Linux weighs whole sessions against each other, ours has its own niceness (`man 7 sched`)."""
    os.nice(NICENESS)
    group = Path("/proc/self/autogroup")
    if group.exists():
        with suppress(OSError):
            group.write_text(str(NICENESS))


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns 0 where everything is in MLflow, 3 where not."""
    parser = argparse.ArgumentParser(prog="python -m tunix_rt.tracking.follow", description=__doc__)
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("--watch", action="store_true", help="go on until the run has ended")
    parser.add_argument("--directory", type=Path, help="where a relative SQLite file is (default: here)")
    options = parser.parse_args(words)
    if options.watch:
        _yield_to_the_run()
    try:
        tracking = read_tracking(RunFolder(options.run_folder))
        report = follow(options.run_folder, tracking, options.watch, options.directory)
    except TunixError as error:
        sys.stderr.write(f"{mask(str(error))}\n")
        return error.exit_code
    except Exception:  # our bug, told in full, but stderr is `tracking.log`
        sys.stderr.write(mask(traceback.format_exc()))
        return 1
    if not options.watch:
        sys.stdout.write(f"{report.message}\n")
    return 0 if report.complete else MachineError.exit_code


if __name__ == "__main__":
    sys.exit(main())
