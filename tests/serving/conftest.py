"""Servers to ask: over a model that is made of rules, in this process; over a trained run, a program of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest

from tests.conftest import TOY, config_of
from tests.pipeline.conftest import made_in
from tunix_rt.backends.interface import Backend, Piece, Request, Top
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.reader import Reader
from tunix_rt.inference.answer import Answerer
from tunix_rt.models.tokenizer import Tokenizer, train_char
from tunix_rt.serving.model import ServedModel
from tunix_rt.serving.scheduler import Scheduler
from tunix_rt.traces.format import formatter

POSITIONS, LONGEST = 64, 48
"""Of the model, and of an answer."""
SECONDS = 0.001
"""Of a step."""


class Ruled:
    """A `ContinuousBatch` that answers with the prompt again and again, a token each step; `!` ends it."""

    def __init__(self, rows: int) -> None:
        self.rows, self.active = rows, dict[int, tuple[Request, int]]()
        self.most, self.fails = 0, False
        self.logprob = -0.25
        self.aborted: list[int] = []

    @property
    def free(self) -> int:
        return self.rows - len(self.active)

    def add(self, request: Request) -> None:
        assert self.free > 0, "the scheduler waits for a free row"
        self.active[request.index] = (request, 0)
        self.most = max(self.most, len(self.active))

    def abort(self, index: int) -> None:
        self.active.pop(index)
        self.aborted.append(index)

    def step(self) -> list[Piece]:
        time.sleep(SECONDS)
        if self.fails:
            self.fails = False
            raise RuntimeError("the device is on fire")
        return [self._piece(index) for index in list(self.active)]

    def _piece(self, index: int) -> Piece:
        request, made = self.active[index]
        self.active[index] = request, made + 1
        token = int(request.prompt[made % len(request.prompt)])
        if token == 3:  # "!"
            del self.active[index]
            return Piece(index, np.zeros(0, np.int32), np.zeros(0, np.float32), "stop", 1, -0.5)
        last = made + 1 == request.generation.max_new_tokens
        if last:
            del self.active[index]
        top = Top(np.array([[token, 2]], np.int32), np.array([[self.logprob, -2.0]], np.float32))
        reason = "length" if last else None
        return Piece(index, np.array([token], np.int32), np.array([self.logprob], np.float32), reason, top=top)  # type: ignore[arg-type]


@dataclass
class RuledEngine:
    """As much of a backend as a server needs."""

    batches: list[Ruled] = field(default_factory=list)
    may_score: threading.Event = field(default_factory=threading.Event)
    scored: int = 0
    """Passes over texts."""

    def __post_init__(self) -> None:
        self.may_score.set()

    def continuous(self, state: object, rows: int) -> Ruled:
        self.batches.append(Ruled(rows))
        return self.batches[-1]

    def logprobs(self, state: object, batch: Batch, top: int) -> dict[str, np.ndarray]:
        self.scored += 1
        assert self.may_score.wait(30)
        shape = batch.tokens.shape
        likely = np.full((*shape, top), -1.0, np.float32)
        return {"logprobs": np.full(shape, -0.5), "top_ids": np.full(likely.shape, 2), "top_logprobs": likely}

    def fetch(self, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return found

    def describe(self) -> dict[str, str]:
        return {"rules": "1"}


@pytest.fixture(scope="session")
def ruled_answerer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Answerer]:
    folder = tmp_path_factory.mktemp("ruled")
    train_char(["!"], " !" + "".join(map(chr, range(ord("0"), ord("z")))), folder)
    (folder / "config.json").write_text(json.dumps({}))
    tokenizer = Tokenizer.load(folder)
    return lambda: answerer_of(tokenizer)


def answerer_of(tokenizer: Tokenizer) -> Answerer:
    """With rules instead of a model."""
    config = config_of(["generation.max_new_tokens=8"])
    reader = Reader(tokenizer, formatter(config.format, tokenizer), POSITIONS)
    return Answerer(cast(Backend, RuledEngine()), None, reader, config.generation, 0)


@dataclass
class Served:
    """A server in this process."""

    url: str
    engine: RuledEngine
    scheduler: Scheduler

    @property
    def batch(self) -> Ruled:
        return self.engine.batches[-1]


@pytest.fixture
def serve_ruled(ruled_answerer: Callable[[], Answerer]) -> Iterator[Callable[..., Served]]:
    """Start a server with so many rows and so long a queue."""
    import uvicorn

    from tunix_rt.serving.app import application

    started: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(
        rows: int = 4,
        queue: int = 8,
        token: str | None = None,
        names: Sequence[str] = ("ruled/0123",),
        make: Callable[[], Answerer] = ruled_answerer,
    ) -> Served:
        def model(name: str) -> ServedModel:
            answerer = make()
            return ServedModel(name, 0, answerer, Scheduler(answerer.batch, rows, queue), LONGEST)

        models = [model(name) for name in names]
        config = uvicorn.Config(application(models, token), port=0, log_level="warning", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        started.append((server, thread))
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        engine = cast(RuledEngine, models[0].answerer.engine)
        return Served(f"http://127.0.0.1:{port}", engine, models[0].scheduler)

    yield start
    for server, thread in started:
        server.should_exit = True
        thread.join()


@pytest.fixture
def closing() -> Iterator[Callable[[httpx.Client], httpx.Client]]:
    """Close a client when the test is over."""
    with ExitStack() as stack:
        yield stack.enter_context


def until(happens: Callable[[], Any], seconds: float = 30) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.005)


@dataclass(frozen=True)
class Program:
    """`python -m tunix_rt serve` over a trained run."""

    folder: Path
    """The working directory, with the run."""
    url: str
    process: subprocess.Popen[str]

    @property
    def run(self) -> Path:
        (found,) = self.folder.glob("runs/quickstart/*/status.json")
        return found.parent

    def predictions(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / "predictions.jsonl").read_text("utf-8").splitlines()]


def started(folder: Path, *words: str, **variables: str) -> Program:
    """A server as a program of its own, once it listens."""
    command = [sys.executable, "-m", "tunix_rt", "serve", *words, "--port", "0"]
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | variables, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"endpoint at (\S+)/v1", line):
            return Program(folder, found[1], process)
    raise AssertionError("".join(lines))


@pytest.fixture(scope="session", params=["torch", pytest.param("jax", marks=pytest.mark.acceptance)])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = made_in(tmp_path_factory.mktemp(request.param), f"backend={request.param}", *TOY)
    served = started(folder, "last", "--rows", "4")
    with served.process:
        yield served
        served.process.terminate()
        assert served.process.wait(60) == 0


@pytest.fixture
def client(program: Program) -> Iterator[Any]:
    from openai import OpenAI

    with OpenAI(base_url=f"{program.url}/v1", api_key="none", max_retries=0) as found:
        yield found
