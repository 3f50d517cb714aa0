"""A child process that answers requests, one JSON line each, within a time and a memory limit.

One child serves all requests of a process. If it takes too long, or dies, it is killed and the next request starts
another: what a model wrote can cost a few seconds, never a hang or the memory of the machine.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from tunix_rt.errors import MachineError
from tunix_rt.files import JsonObject

START_SECONDS = 120.0
"""For imports, which a busy machine may make slow."""


class Child:
    """`python -m MODULE`, started when first asked. Not shared by threads; a forked process starts its own."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, request: JsonObject, seconds: float) -> JsonObject | None:
        """The child's answer; None if it took longer than `seconds` or died. Raises MachineError: it cannot start."""
        process = self._running()
        try:
            _write(process, request)
            return _read(process, seconds)
        except (OSError, ValueError, EOFError):
            self.stop()
            return None

    def stop(self) -> None:
        """Kill the child, if there is one."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    stream.close()  # type: ignore[union-attr]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONHASHSEED": "0"},
            )
            self._owner = os.getpid()
            atexit.unregister(self.stop)
            atexit.register(self.stop)
            try:
                _read(self._process, START_SECONDS)
            except (OSError, ValueError, EOFError):
                self.stop()
                what = f"python -m {self.module} does not start"
                raise MachineError(f"{what}; type it to see why (it waits for a line when it works)") from None
        return self._process


def _write(process: subprocess.Popen[bytes], request: JsonObject) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()


def _read(process: subprocess.Popen[bytes], seconds: float) -> JsonObject:
    """One line. Raises EOFError if the child ended, TimeoutError (an OSError) if there is none in time."""
    assert process.stdout is not None
    end, line = time.monotonic() + seconds, b""
    while not line.endswith(b"\n"):
        if not select.select([process.stdout], [], [], max(end - time.monotonic(), 0))[0]:
            raise TimeoutError
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            raise EOFError
        line += piece
    answer: JsonObject = json.loads(line)
    return answer


def serve(respond: Callable[[JsonObject], JsonObject], memory: int) -> None:
    """The child's side: a line when it is ready, then one for each request. `memory`: bytes that it may use."""
    limit_memory(memory)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    print("{}", file=out, flush=True)
    for line in sys.stdin:
        try:
            answer = respond(json.loads(line))
        except (Exception, RecursionError) as error:
            answer = {"error": type(error).__name__}
        print(json.dumps(answer), file=out, flush=True)


def limit_memory(size: int) -> None:
    """No more than `size` bytes of address space for this process, where the system has such a limit."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))
