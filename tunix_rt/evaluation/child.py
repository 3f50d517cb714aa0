"""A child process that answers requests, one JSON line each, within a time and a memory limit.

One child serves all requests of a process. If it takes too long, or dies, it is killed and the next request starts
another: what a model wrote can cost a few seconds, never a hang or the memory of the machine. Whatever the child
started in its session ends with it. Should this process die meanwhile, a watcher ends them all, whatever they compute.
Ctrl-C and SIGTERM are for this process to answer, so that a verdict is never lost to them.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from tunix_rt.errors import MachineError
from tunix_rt.files import JsonObject

START_SECONDS = 120.0
"""For imports, which a busy machine may make slow."""


class Child:
    """`python -m MODULE …`, started when first asked. Not shared by threads; a forked process starts its own."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.command = ["-m", module, *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._ready = False
        self._read = b""

    def ask(self, request: JsonObject, seconds: float) -> JsonObject | None:
        """The child's answer; None if it took longer than `seconds` or died. Raises MachineError: it cannot start."""
        return self.ask_each([request], seconds)[0]

    def ask_each(self, requests: Sequence[JsonObject], seconds: float) -> list[JsonObject | None]:
        """The answer to each request, as `ask` gives it: `seconds` are for one of them."""
        found: list[JsonObject | None] = []
        while len(found) < len(requests):
            found += self._asked(requests[len(found) :], seconds)
        return found

    def start(self) -> None:
        """Start the child, if there is none, without waiting until it is ready."""
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self.stop()  # one that died may have left others
            self._process = subprocess.Popen(
                [sys.executable, *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONHASHSEED": "0"},
                start_new_session=True,  # or the terminal's Ctrl-C would reach it
            )
            self._owner, self._ready, self._read = os.getpid(), False, b""
            atexit.unregister(self.stop)
            atexit.register(self.stop)

    def wait(self) -> None:
        """Start the child and wait until it is ready. Raises MachineError: it cannot start."""
        self.start()
        if self._ready:
            return
        try:
            self._line(START_SECONDS)
        except (OSError, ValueError, EOFError):
            self.stop()
            what = f"python {' '.join(self.command[:2])} does not start"
            raise MachineError(f"{what}; type it to see why (it waits for a line when it works)") from None
        except BaseException:
            self.stop()
            raise
        self._ready = True

    def stop(self) -> None:
        """Kill the child, if there is one, and what it started."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            with suppress(
                ProcessLookupError, PermissionError
            ):  # the system of Apple refuses where only the dead are left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    stream.close()  # type: ignore[union-attr]

    def _asked(self, requests: Sequence[JsonObject], seconds: float) -> list[JsonObject | None]:
        """Answers up to the first None."""
        self.wait()
        found: list[JsonObject | None] = []
        try:
            self._send(requests)
            found.extend(self._line(seconds) for _ in requests)  # those before a failure stay
        except (OSError, ValueError, EOFError):
            self.stop()
            found.append(None)
        except BaseException:  # an interrupt: what is not read yet would be taken for the answer to the next request
            self.stop()
            raise
        return found

    def _send(self, message: Sequence[JsonObject]) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(message)).encode() + b"\n")
        self._process.stdin.flush()

    def _line(self, seconds: float) -> JsonObject:
        """One line. Raises EOFError if the child ended, TimeoutError (an OSError) if there is none in time."""
        assert self._process is not None and self._process.stdout is not None
        out, end = self._process.stdout, time.monotonic() + seconds
        while b"\n" not in self._read:
            if not select.select([out], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError
            piece = os.read(out.fileno(), 65536)
            if not piece:
                raise EOFError
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        answer: JsonObject = json.loads(line)
        return answer


def serve(respond: Callable[[JsonObject], JsonObject], memory: int) -> None:
    """The child's side: a line when it is ready, then one for each request. `memory`: bytes that it may use."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    _watch()
    limit_memory(memory)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    print("{}", file=out, flush=True)
    for line in sys.stdin:
        for request in json.loads(line):
            try:
                answer = respond(request)
            except (Exception, RecursionError) as error:
                answer = {"error": type(error).__name__}
            print(json.dumps(answer), file=out, flush=True)


def _watch() -> None:
    """Leave a process that ends the whole group once nobody can ask it any more.

    A signal's handler, or a thread, would wait until what a scorer computes lets Python go on.
    """
    first = os.fork()
    if first:
        os.waitpid(first, 0)  # no child of ours is left, for which a scorer's own os.wait() would wait
    elif os.fork():
        os._exit(0)
    else:
        _end_group_with_its_owner()


def _end_group_with_its_owner() -> NoReturn:
    os.closerange(1, 1024)  # or who reads them would not see the child's end
    owner = select.poll()
    owner.register(0, 0)  # no event but that its other end is closed
    owner.poll()
    os.killpg(0, signal.SIGKILL)
    os._exit(0)


def limit_memory(size: int) -> None:
    """No more than `size` bytes of address space for this process, where the system has such a limit."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))
