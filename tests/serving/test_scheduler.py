"""Requests that come and go while others are answered: nobody's answer is another's, and no row is lost."""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from collections.abc import Callable
from typing import Any, cast

import httpx
import numpy as np
import pytest

from tests.conftest import config_of
from tests.serving.conftest import Ruled, Served, until
from tunix_rt.backends.interface import Request
from tunix_rt.errors import OutOfMemory
from tunix_rt.serving.scheduler import Scheduler, close_all
from tunix_rt.serving.ticket import Ticket

Serve = Callable[..., Served]


def body(prompt: str, **further: Any) -> dict[str, Any]:
    return {"model": "ruled", "prompt": prompt, "max_tokens": 16} | further


async def streamed(client: httpx.AsyncClient, given: dict[str, Any], chunks: int | None = None) -> str:
    """The text of a stream; of its first `chunks`, and then the client leaves."""
    text, seen = "", 0
    async with client.stream("POST", "/v1/completions", json=given | {"stream": True}) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            text += "".join(choice["text"] for choice in event["choices"])
            seen += 1
            if seen == chunks:
                break
    return text


async def whole(client: httpx.AsyncClient, given: dict[str, Any]) -> str:
    response = await client.post("/v1/completions", json=given)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


def with_client(served: Served, work: Callable[[httpx.AsyncClient], Any]) -> Any:
    async def run() -> Any:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=served.url, timeout=60, limits=limits) as client:
            return await work(client)

    return asyncio.run(run())


def test_fifty_at_once_of_which_some_leave(serve_ruled: Serve) -> None:
    """Every third client leaves in the middle, every third takes its answer whole; each gets its own."""
    served = serve_ruled(rows=4, queue=50)

    async def burst(client: httpx.AsyncClient) -> list[str]:
        kinds: list[Callable[[dict[str, Any]], Any]] = [
            lambda given: streamed(client, given),
            lambda given: streamed(client, given, chunks=3),
            lambda given: whole(client, given),
        ]
        return await asyncio.gather(*(kinds[place % 3](body(f"<{place}>")) for place in range(50)))

    texts = with_client(served, burst)
    for place, text in enumerate(texts):
        expected = (f"<{place}>" * 16)[:16]
        assert text == (expected[:3] if place % 3 == 1 else expected)
    until(lambda: not served.batch.active)
    assert served.batch.most == 4, "answered together"
    assert served.scheduler.num_active == served.scheduler.num_waiting == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_row(serve_ruled: Serve, stream: bool) -> None:
    served = serve_ruled(rows=1)

    async def leave(client: httpx.AsyncClient) -> None:
        given = body("abc", max_tokens=48, n=2)
        asking = asyncio.create_task(streamed(client, given) if stream else whole(client, given))
        await asyncio.to_thread(until, lambda: served.scheduler.num_active == 1 and served.scheduler.num_waiting == 1)
        asking.cancel()

    with_client(served, leave)
    until(lambda: served.scheduler.num_active == served.scheduler.num_waiting == 0)
    assert len(served.batch.aborted) == 1
    assert with_client(served, lambda client: whole(client, body("xy", max_tokens=3))) == "xyx"


def test_the_queue_has_an_end(serve_ruled: Serve) -> None:
    """503 with the time after which to ask again; those in the queue are answered."""
    served = serve_ruled(rows=1, queue=2)

    async def crowd(client: httpx.AsyncClient) -> list[httpx.Response]:
        first = asyncio.create_task(whole(client, body("abc", max_tokens=48)))
        await asyncio.to_thread(until, lambda: served.scheduler.num_active == 1)
        found = await asyncio.gather(*(client.post("/v1/completions", json=body("d", max_tokens=1)) for _ in range(6)))
        assert len(await first) == 48
        return found

    found = with_client(served, crowd)
    assert sorted(response.status_code for response in found) == [200, 200, 503, 503, 503, 503]
    refused = next(response for response in found if response.status_code == 503)
    assert refused.headers["Retry-After"] == "1" and refused.json()["error"]["code"] == "server_full"


def test_a_failure_is_told_and_the_next_is_answered(serve_ruled: Serve) -> None:
    served = serve_ruled()
    until(lambda: served.engine.batches)
    served.batch.fails = True

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/completions", json=body("abc"))

    failed = with_client(served, ask)
    assert failed.status_code == 500 and failed.json()["error"]["type"] == "server_error"
    assert "on fire" not in failed.text, "what happened inside is said on the server's terminal only"
    assert with_client(served, lambda client: whole(client, body("xy", max_tokens=3))) == "xyx"
    assert len(served.engine.batches) == 2


def test_the_failed_batch_is_given_up_before_the_next_is_opened(
    serve_ruled: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is what the next one needs."""
    served = serve_ruled()
    until(lambda: served.engine.batches)
    served.batch.fails = True
    failed, alive = weakref.ref(served.engine.batches.pop()), []
    opened = served.engine.continuous

    def again(state: object, rows: int) -> Any:
        alive.append(failed() is not None)
        return opened(state, rows)

    monkeypatch.setattr(served.engine, "continuous", again)
    with_client(served, lambda client: client.post("/v1/completions", json=body("abc")))
    until(lambda: alive)
    assert alive == [False]


def test_a_model_that_cannot_begin_again_is_reported(
    serve_ruled: Serve, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits for an answer that never comes, and whoever watches the server sees it."""
    served = serve_ruled(rows=1)
    until(lambda: served.engine.batches)

    def refuse(*_: object) -> None:
        raise OutOfMemory("the device's memory is full: --rows 1")

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        assert (await client.get("/health")).status_code == 200
        monkeypatch.setattr(served.engine, "continuous", refuse)
        served.batch.fails = True
        found = await asyncio.gather(*(client.post("/v1/completions", json=body("abc")) for _ in range(2)))
        await asyncio.to_thread(until, lambda: served.scheduler.is_closed)
        return [*found, await client.post("/v1/completions", json=body("abc")), await client.get("/health")]

    *failed, health = with_client(served, ask)
    assert [response.status_code for response in failed] == [500] * 3
    assert {response.json()["error"]["code"] for response in failed} == {"model_failed"}
    assert "--rows 1" in failed[-1].text, "what is wrong, and what to do"
    assert health.status_code == 503 and health.json()["status"] == "failed"
    assert "memory is full" in capfd.readouterr().err


def test_nothing_more_is_scored_for_a_client_that_left(serve_ruled: Serve) -> None:
    served = serve_ruled()
    served.engine.may_score.clear()

    async def leave(client: httpx.AsyncClient) -> None:
        given = body("") | {"prompt": ["ab"] * 200, "echo": True, "logprobs": 1, "max_tokens": 0}
        asking = asyncio.create_task(client.post("/v1/completions", json=given))
        await asyncio.to_thread(until, lambda: served.engine.scored)
        asking.cancel()

    with_client(served, leave)
    served.engine.may_score.set()
    assert with_client(served, lambda client: whole(client, body("xy", max_tokens=3))) == "xyx"
    until(lambda: served.scheduler.num_waiting == 0)
    assert served.engine.scored <= 3, "of 25 portions"


def test_who_still_waits_at_the_end_is_told(serve_ruled: Serve) -> None:
    served = serve_ruled(rows=1)

    async def end(client: httpx.AsyncClient) -> httpx.Response:
        asking = asyncio.create_task(client.post("/v1/completions", json=body("abc", max_tokens=48)))
        await asyncio.to_thread(until, lambda: served.scheduler.num_active == 1)
        await asyncio.to_thread(served.scheduler.close)
        return await asking

    ended = with_client(served, end)
    assert ended.status_code == 503 and "ending" in ended.json()["error"]["message"]


def test_several_models_end_together() -> None:
    """While their last steps are computed, the loop goes on: streams are written to their end."""
    may_end = threading.Event()

    class Busy(Ruled):
        def step(self) -> list[Any]:
            assert may_end.wait(20), "the loop stood still while the first was waited for"
            return super().step()

    async def end() -> None:
        schedulers = [Scheduler(Busy, 1, 1) for _ in range(2)]
        settings = config_of(["generation.max_new_tokens=8"]).generation
        for one in schedulers:
            one.submit([Request(0, np.array([4], np.int32), settings, 0)])
        await asyncio.to_thread(until, lambda: all(one.num_active for one in schedulers))
        closing = asyncio.create_task(close_all(schedulers))
        while not all(one.is_closed for one in schedulers):
            await asyncio.sleep(0)
        may_end.set()
        await closing

    asyncio.run(end())


def test_a_loop_that_closes_meanwhile_is_no_failure_of_the_model() -> None:
    class Closing:
        """Between the two calls."""

        def is_closed(self) -> bool:
            return False

        def call_soon_threadsafe(self, _: object) -> None:
            raise RuntimeError("Event loop is closed")

    Ticket([0], lambda _: None, cast(asyncio.AbstractEventLoop, Closing())).deliver([])
