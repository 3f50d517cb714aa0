"""The server as a process: its port, its models, its end."""

from __future__ import annotations

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
from tunix_rt.serving.model import Model
from tunix_rt.serving.scheduler import Scheduler
from tunix_rt.terminal import say

TOKEN_VARIABLE = "TUNIX_RT_SERVE_TOKEN"  # noqa: S105 (its name)
GRACE = 10
"""Seconds in which answers that have begun can end before the server does."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server answers."""

    rows: int
    """Answers that one model writes at once."""
    line: int
    """Answers that wait for it."""
    max_tokens: int | None
    """Of an answer; None: as many as the model has positions."""


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """A bound socket. Raises InputError, MachineError (the port is taken)."""
    if token is None and not is_loopback(host):
        raise InputError(
            f"--host {host} can be reached from other machines: set a token ({TOKEN_VARIABLE} or --token-file)"
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise MachineError(f"{host}:{port}: {os.strerror(error.errno or 0)}; choose another with --port") from None


def read_token(file: Path | None) -> str | None:
    """The token of a file, or else of the environment; None if there is none. Raises InputError."""
    try:
        given = os.environ.get(TOKEN_VARIABLE) if file is None else file.read_text("utf-8").strip()
    except OSError as error:
        raise InputError(f"--token-file {file}: {error.strerror}") from None
    if file is not None and not given:
        raise InputError(f"--token-file {file}: empty")
    return given or None


def model_of(run: RunFolder, answerer: Answerer, limits: Limits) -> Model:
    """A loaded run with a thread of its own."""
    scheduler = Scheduler(lambda: answerer.batch(limits.rows), limits.line)
    longest = limits.max_tokens or answerer.reader.max_positions
    return Model(run.name, int(run.status_file.stat().st_mtime), answerer, scheduler, longest)


def serve(models: Sequence[Model], listening: socket.socket, token: str | None) -> None:
    """Answer until SIGINT or SIGTERM; a second SIGINT ends it at once."""
    config = uvicorn.Config(
        application(models, token),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=GRACE,
    )
    host, port = listening.getsockname()[:2]
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    for model in models:
        say(f"serving {model.name}")
    say(f"a chat page at {place}, an OpenAI-compatible endpoint at {place}/v1; Ctrl-C ends it")
    _Server(config).run([listening])
    say("ended")


class _Server(uvicorn.Server):
    """uvicorn's, whose end by a signal is the ordinary one."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
