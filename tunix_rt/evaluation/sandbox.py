"""Runs a program that a model wrote against tests, in a process with limits. Also the program of that process.

Limited are processor and wall time, memory, the size and number of files, and processes; the network is cut off where
the system lets a process do so (Linux with user namespaces); the environment is empty and the folder a temporary one.
That stops accidents, not an attacker: it runs as the same user, who can read what that user can. In the manner of
openai/human-eval at 6d43fb9 (`human_eval/execution.py`), whose tests run in the program's process too.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEGABYTE = 2**20
LARGEST_FILE = 10 * MEGABYTE
MOST_PROCESSES = 64
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
"""Flags of unshare(2)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many of the tests passed; why the first of the others did not."""

    passed: int
    problem: str


def run_tests(program: str, tests: Sequence[str], seconds: float, megabytes: int) -> Outcome:
    """Run `program`, then each test in its namespace. What it prints is lost."""
    token = secrets.token_hex(16)
    request = json.dumps({"program": program, "tests": list(tests), "token": token, "megabytes": megabytes,
                          "seconds": seconds})  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PYTHONHASHSEED": "0", "HOME": folder, "TMPDIR": folder},
            start_new_session=True,
        )
        try:
            said = process.communicate(request.encode(), timeout=seconds + 5)[0]
        except subprocess.TimeoutExpired:
            return Outcome(0, f"took longer than {seconds:g} s")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return _outcome(said, token, seconds, process.returncode)


def _outcome(said: bytes, token: str, seconds: float, code: int) -> Outcome:
    """Read the last line; without the token the program ended before its tests did."""
    try:
        record = json.loads(said.splitlines()[-1])
        if record["token"] == token:
            return Outcome(int(record["passed"]), str(record["problem"]))
    except (IndexError, KeyError, TypeError, ValueError):
        pass
    slow = code in (-signal.SIGXCPU, -signal.SIGALRM, -signal.SIGKILL)
    return Outcome(0, f"took longer than {seconds:g} s" if slow else "ended before its tests did")


def _main() -> None:
    """The child: limits, the program, its tests, one line."""
    request = json.loads(sys.stdin.buffer.read())
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    _limit(request["seconds"], request["megabytes"])
    passed, problem = _tried(request["program"], request["tests"])
    print(json.dumps({"token": request["token"], "passed": passed, "problem": problem}), file=out, flush=True)
    os._exit(0)


def _tried(program: str, tests: Sequence[str]) -> tuple[int, str]:
    space: dict[str, Any] = {"__name__": "program"}
    if problem := _problem(program, space):
        return 0, problem
    problems = [_problem(test, space) for test in tests]
    return problems.count(""), next(filter(None, problems), "")


def _problem(source: str, space: dict[str, Any]) -> str:
    """What running a source raises, in one line; empty if nothing. An end before the tests is a failure as well."""
    try:
        exec(compile(source, "<program>", "exec"), space)  # noqa: S102 (this is what the sandbox is for)
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}".rstrip(": ")
    return ""


def _limit(seconds: float, megabytes: int) -> None:
    import resource

    _without_network()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    whole = int(seconds) + 1
    for what, most in (
        (resource.RLIMIT_CPU, whole),
        (resource.RLIMIT_AS, megabytes * MEGABYTE),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, MOST_PROCESSES),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


def _without_network() -> bool:
    """Leave for a namespace without network devices; False if the system does not let us."""
    import ctypes

    try:
        return bool(ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK) == 0)
    except (AttributeError, OSError):
        return False


if __name__ == "__main__":
    _main()
