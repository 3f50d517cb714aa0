"""Runs one member: in this process, or in a launcher's worker, in its own process.

python -m tunix_rt.sweeps.member SWEEP_FOLDER KEY     (a launcher's worker starts and supervises it)
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunix_rt.backends import heap
from tunix_rt.backends.processes.start import in_job
from tunix_rt.config.load import check, resolve
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import Interrupted, TunixError
from tunix_rt.files import read_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.interrupt import StopRequested
from tunix_rt.runs.secrets import URI_VARIABLE, mask_values, masked_traceback, password_to_variable
from tunix_rt.runs.sweep import MemberRecord, MemberState, SweepFolder
from tunix_rt.sweeps.ranking import announce
from tunix_rt.sweeps.supervise import supervise

PRUNED = "pruned"
"""First word of a `stop` file that ends a member for good."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where the sweep was started."""

    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    directory: str = field(default_factory=os.getcwd)

    def is_here(self) -> bool:
        """Whether this is the process that started the sweep, not a launcher's worker."""
        return (self.host, self.pid) == (platform.node(), os.getpid())


def member(composed: Any, home: Home) -> str:
    """Hydra's task: run one member and return its state. Its failure is recorded, never raised."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    sweep, overrides = SweepFolder(Path(hydra.sweep.dir)), tuple(hydra.overrides.task)
    hide_password(composed)
    if sweep.asked_to_stop() is not None:
        return "not started"
    if home.is_here():
        record = work(sweep, overrides, resolve(composed))
        announce(sweep, record)
    else:
        record = supervise(sweep, overrides, resolve(composed), home.directory)
    return record.state


def hide_password(composed: Any) -> None:
    """Let a config take a `tracking.uri` with a password from the environment: launchers write configs to disk."""
    from omegaconf import read_write

    (text,) = password_to_variable([f"tracking.uri={composed.tracking.uri}"], "tracking.uri", URI_VARIABLE)
    with read_write(composed):
        composed.tracking.uri = text.partition("=")[2]


def work(sweep: SweepFolder, overrides: Sequence[str], mapping: Mapping[str, Any]) -> MemberRecord:
    """Run a member in this process; its record gives its state and how it ended."""
    record = MemberRecord(tuple(overrides), "running", None, pid=os.getpid())
    try:
        from tunix_rt.precision import decided
        from tunix_rt.sweeps.plan import folder_of

        config = decided(check(mapping))
        folder = folder_of(config)[0]
        record = replace(record, folder=str(folder.path))
        sweep.write(record)
        state, reason = _run(sweep, config, folder)
    except Exception as error:  # perhaps a bug, ours or the framework's: the other members continue
        known = isinstance(error, TunixError)
        if not known or mapping.get("debug") is True:
            sys.stderr.write(masked_traceback(error))
        state, reason = "failed", mask_values(str(error) if known else f"{type(error).__name__}: {error}")
    record = replace(record, state=state, reason=reason)
    sweep.write(record)
    return record


def _run(sweep: SweepFolder, config: ExperimentConfig, folder: RunFolder) -> tuple[MemberState, str | None]:
    """Whether it finished, was pruned or interrupted, and why. Raises any other error of the run."""
    from tunix_rt.experiment import run  # heavy

    try:
        run(config, sweep=sweep.path)
    except StopRequested as error:
        if error.why.startswith(PRUNED):
            return "pruned", error.why.removeprefix(f"{PRUNED}: ")
        return "interrupted", str(error)
    except Interrupted as error:
        if sweep.status()["pid"] == os.getpid():  # the sweep's own process: an interrupt is meant for the sweep
            sweep.ask_to_stop(signal.Signals(error.exit_code - 128).name)
        return "interrupted", str(error)
    (folder.path / "stop").unlink(missing_ok=True)  # came too late
    return "finished", None


def _end_with_parent() -> None:
    """Nothing is ever written to this pipe: it closes when the process at its other end ends or closes it.

    Both cases take this path: a second SIGTERM would end the member before its work is saved.
    """
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def program(words: Sequence[str]) -> int:
    """The member's own process, which leads the others of its job, if there are any; returns its exit code."""
    try:
        return in_job(lambda: main(words))
    except TunixError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def main(words: Sequence[str]) -> int:
    """Run the member of a request; returns 0 if it finished."""
    sweep, key = SweepFolder(Path(words[0])), words[1]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    request = read_json(sweep.request(key))
    request["config"]["tracking"]["uri"] = os.environ[URI_VARIABLE]
    record = work(sweep, request["overrides"], request["config"])
    if record.state == "failed":
        sys.stderr.write(f"error: {record.reason}\n")
    return 0 if record.state == "finished" else 1


if __name__ == "__main__":
    heap.own_process()
    sys.exit(program(sys.argv[1:]))
