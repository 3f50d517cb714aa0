"""The server as a process: its port, its models, its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from tunix_rt.errors import InputError, MachineError
from tunix_rt.inference.answer import Answerer
from tunix_rt.runs.folder import RunFolder
from tunix_rt.serving.app import application
from tunix_rt.serving.guard import is_loopback
from tunix_rt.serving.model import ServedModel
from tunix_rt.serving.scheduler import Scheduler
from tunix_rt.terminal import say

TOKEN_VARIABLE = "TUNIX_RT_SERVE_TOKEN"  # noqa: S105 (its name)
GRACE = 10
"""Seconds in which answers that have begun can end before the server does; the others end with an error."""
LAST_STEP = 5
"""Seconds in which the step that is computed then can end, before connections are cut."""
KEEP_ALIVE = 75
"""Seconds in which a client may use its connection again, longer than clients keep theirs: none meets a closed one."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server answers."""

    rows: int
    """Answers that one model writes at once."""
    queue: int
    """Answers that wait for it."""
    max_tokens: int | None
    """Of an answer; None: as many as the model has positions."""


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """A bound socket. Raises InputError, MachineError (the port is taken, or this machine has no such address)."""
    if token is None and not is_loopback(host):
        raise InputError(
            f"--host {host} can be reached from other machines: set a token ({TOKEN_VARIABLE} or --token-file)"
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except UnicodeError:
        raise InputError(f"--host {host[:80]!r} is no name of a host") from None
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise MachineError(f"--host {host}: {error.strerror}; name an address of this machine") from None
        raise MachineError(f"{host}:{port}: {os.strerror(error.errno or 0)}; choose another with --port") from None


def read_token(file: Path | None) -> str | None:
    """The token of a file, or else of the environment; None if there is none. Raises InputError."""
    where = TOKEN_VARIABLE if file is None else f"--token-file {file}"
    try:
        given = os.environ.get(TOKEN_VARIABLE) if file is None else file.read_text("utf-8", "replace")
    except OSError as error:
        raise InputError(f"{where}: {error.strerror}") from None
    if not given and file is None:
        return None
    token = (given or "").strip()
    if not token:
        raise InputError(f"{where}: empty")
    if not (token.isascii() and token.isprintable()):
        raise InputError(f"{where}: a header carries printable ASCII characters alone; choose a token of these")
    return token


def model_of(run: RunFolder, answerer: Answerer, limits: Limits) -> ServedModel:
    """A loaded run with a thread of its own."""
    scheduler = Scheduler(answerer.batch, limits.rows, limits.queue)
    longest = limits.max_tokens or answerer.reader.max_positions
    return ServedModel(run.name, int(run.status_file.stat().st_mtime), answerer, scheduler, longest)


def serve(models: Sequence[ServedModel], listening: socket.socket, token: str | None) -> None:
    """Answer until SIGINT or SIGTERM; a second SIGINT waits for no answer any more."""
    config = uvicorn.Config(
        application(models, token),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=GRACE + LAST_STEP,
        timeout_keep_alive=KEEP_ALIVE,
    )
    host, port = listening.getsockname()[:2]
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    for model in models:
        say(f"serving {model.name}")
    say(f"a chat page at {place}, an OpenAI-compatible endpoint at {place}/v1; Ctrl-C ends it")
    _Server(config, [model.scheduler for model in models]).run([listening])
    say("ended")


class _Server(uvicorn.Server):
    """uvicorn's, whose end by a signal is the ordinary one."""

    def __init__(self, config: uvicorn.Config, schedulers: Sequence[Scheduler]) -> None:
        super().__init__(config)
        self._schedulers = schedulers

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; an answer that goes on for longer than `GRACE` ends with an error that its client can read."""
        closing = [asyncio.get_running_loop().call_later(GRACE, one.close) for one in self._schedulers]
        await super().shutdown(sockets)
        for one in closing:
            one.cancel()
        if self.force_exit:  # answers are cut off because that was asked for, which is no error
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
