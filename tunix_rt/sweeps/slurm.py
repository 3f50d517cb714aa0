"""A job array of SLURM: handed over through submitit, and waited for.

SLURM is asked which jobs are still in its queue (`squeue`), because a cluster without accounting has no `sacct`, by
which submitit would know, and because a job that is queued again or cancelled leaves no result.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunix_rt.backends.processes.world import TAKEN
from tunix_rt.config.choices import BACKENDS
from tunix_rt.errors import ConfigError
from tunix_rt.runs.sweep import MemberRecord, SweepFolder, key_of
from tunix_rt.terminal import say

GLANCE = 1.0
"""Seconds between two checks for the result of a job."""
ASK_EVERY = 10.0
"""Seconds between two questions to SLURM's controller."""
COMMON = ("name", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min")
"""Settings that submitit names alike for every kind of cluster (`AutoExecutor`); others have a prefix."""


def tasks_per_node(settings: Mapping[str, Any], backend: str, members: Sequence[Sequence[str]]) -> int:
    """Processes of a member on each node: what is set, else one for each GPU, or one for all of a node on a backend
    that needs no more. `backend`: of members whose overrides name none. Raises ConfigError if they differ in it.
    """
    gpus = int(settings["gpus_per_node"] or 1)
    if settings["tasks_per_node"] is not None:
        return int(settings["tasks_per_node"])
    named = [[word.partition("=")[2] for word in member if word.startswith("backend=")] for member in members]
    tasks = {gpus if BACKENDS[(names or [backend])[-1]].process_per_device else 1 for names in named}
    if len(tasks) > 1:
        raise ConfigError(
            f"some members need {gpus} tasks on each node and others one: sweep over one backend at a time"
        )
    return tasks.pop()


def submit(settings: Mapping[str, Any], function: Any, *arguments: Sequence[Any]) -> list[Any]:
    """Submit one job for each row of arguments; returns submitit's jobs. Raises what submitit raises."""
    import submitit

    os.environ.pop(TAKEN, None)  # the jobs inherit these variables, and are processes of another world
    given = {key: value for key, value in settings.items() if key not in ("submitit_folder", "max_num_timeout")}
    executor = submitit.AutoExecutor(
        settings["submitit_folder"], cluster="slurm", slurm_max_num_timeout=settings["max_num_timeout"]
    )
    executor.update_parameters(**{key if key in COMMON else f"slurm_{key}": value for key, value in given.items()})
    return list(executor.map_array(function, *arguments))


def wait(sweep: SweepFolder, jobs: Sequence[Any], members: Sequence[Sequence[str]]) -> None:
    """Wait until each job has left a result or the queue; when the sweep is asked to stop, those that have not begun
    are cancelled.
    """
    array = str(jobs[0].job_id).split("_")[0]
    say(f"SLURM job {array}, members: {len(jobs)}; `squeue -j {array}` shows the queue")
    waiting = dict(zip((str(job.job_id) for job in jobs), zip(jobs, members, strict=True), strict=True))
    cancelled, asked = False, float("-inf")
    while waiting:
        time.sleep(GLANCE)
        waiting = {name: found for name, found in waiting.items() if not _has_result(found[0])}
        if not cancelled and sweep.asked_to_stop() is not None:
            subprocess.run(["scancel", "--state=PENDING", array], check=False, capture_output=True, timeout=60)
            cancelled, asked = True, float("-inf")
        if time.monotonic() - asked > ASK_EVERY:
            queued, asked = in_queue(), time.monotonic()
            for name in [name for name in waiting if queued is not None and name not in queued]:
                job, overrides = waiting.pop(name)
                if not _has_result(job):
                    _record_loss(sweep, overrides, name)


def in_queue() -> set[str] | None:
    """The jobs of this user that wait or run, as submitit names them; None if SLURM does not answer now."""
    words = ["squeue", f"--user={os.getuid()}", "--noheader", "--array", "--format=%i"]
    try:
        done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(done.stdout.split())


def _has_result(job: Any) -> bool:
    """Of the first task, which supervises the member."""
    return bool(job.task(0).paths.result_pickle.exists())


def _record_loss(sweep: SweepFolder, overrides: Sequence[str], name: str) -> None:
    """A member whose job has gone without a word: cancelled, or its node is dead."""
    if sweep.asked_to_stop() is not None:
        return
    record = sweep.read(key_of(overrides)) or MemberRecord(tuple(overrides), "running", None)
    if record.state in ("running", "interrupted"):
        reason = f"its job {name} is no longer in SLURM's queue (cancelled?); the same command goes on"
        sweep.write(replace(record, state="interrupted", reason=reason))
