"""Where the processes of a job come from: a launcher's, which are joined, or our own, started on this machine.

A program calls `in_job` first of all. As long as nothing needs more than one process nothing of this is imported.
"""

from __future__ import annotations

import atexit
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from tunix_rt.backends.processes.world import TAKEN, World
from tunix_rt.errors import RunError

if TYPE_CHECKING:
    from tunix_rt.backends.processes.job import Job

_job: Job | None = None
"""The followers of this process."""
_launched: World | None = None
"""What the launcher said, which is asked once: what this process starts is no part of the launcher's job."""


def in_job(work: Callable[[], int]) -> int:
    """In the leader, the exit code of `work`; in a follower the leader's, and `work` is left undone.

    Raises ConfigError if the launcher's variables make no sense, RunError if the processes do not find each other.
    """
    world = launched()
    _follow_unless_first(world)
    if world.size > 1:
        _open(world)
    code = work()
    if _job is not None:
        _job.close(code)
        if _job.broken:  # at the interpreter's end the framework would wait for processes that are gone
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return code


def join_tpu_pod() -> None:
    """Where a command is about to compute on a TPU pod: the first host leads it, and on the others this does not
    return. Raises ConfigError, RunError as `in_job`."""
    global _launched
    pod = World.of_tpu_pod()
    if launched().size == 1 and pod.size > 1:
        _launched = pod
        os.environ[TAKEN] = str(os.getpid())
        _follow_unless_first(pod)


def _follow_unless_first(world: World) -> None:
    if not world.leads:
        from tunix_rt.backends.processes.follower import follow

        follow(world)


def launched() -> World:
    """This process among those that a launcher has started."""
    global _launched
    if _launched is None:
        _launched = World.from_environment()
        if _launched.size > 1:
            os.environ[TAKEN] = str(os.getpid())
    return _launched


def followers(size: int) -> Job:
    """The job of `size` processes that this one leads, each of which is there. Raises RunError, ConfigError."""
    world = launched()
    if not world.leads:
        raise RunError(f"this is process {world.rank} of {world.size}: `tunix_rt.backends.processes.start.in_job`")
    if _job is not None and _job.world.size == size and not (_job.broken or _job.closed):
        job = _job
    elif world.size > 1:
        job = _open(world)
    else:
        job = _start(size)
    job.ready()
    return job


def _open(world: World) -> Job:
    """Let the processes that a launcher has started join. Raises RunError after one of them has failed."""
    from tunix_rt.backends.processes.channel import job_key, listen, ports_of

    if _job is not None:
        raise RunError("a process of this job has failed, or was interrupted; start the command again")
    return _lead(world, listen(world.address, ports_of(world)), job_key())


def _start(size: int) -> Job:
    """Start the others on this machine. They are in a session of their own: a terminal's Ctrl-C is for this one."""
    from tunix_rt.backends.processes.channel import KEY, PORT, job_key, listen

    if _job is not None:
        _job.close(0)
    key, listening = secrets.token_hex(), listen("127.0.0.1", [0])
    known = {KEY: key, PORT: str(listening.getsockname()[1]), "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(size)}
    shared = {name: value for name, value in os.environ.items() if name not in (TAKEN, "MASTER_PORT")} | known
    shared |= {"LOCAL_WORLD_SIZE": str(size)}
    processes = [_process(shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(1, size)]
    return _lead(World(size=size, local_size=size), listening, job_key({KEY: key}), processes)


def _process(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command, streams = [sys.executable, "-m", "tunix_rt"], {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment, start_new_session=True, **streams)  # type: ignore[call-overload, no-any-return]


def _lead(
    world: World, listening: socket.socket, key: bytes, processes: list[subprocess.Popen[bytes]] | None = None
) -> Job:
    global _job
    from tunix_rt.backends.processes.job import Job

    if _job is None:
        atexit.register(_end)
    _job = Job(replace(world, port=_free_port()), listening, key, processes)
    return _job


def _end() -> None:
    """For a program that is not ours, and does not go through `in_job`."""
    if _job is not None:
        _job.close(0)


def _free_port() -> int:
    """One at which the framework's processes can meet."""
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])
