"""What is not answered, and that it is said in OpenAI's shape: names, numbers, codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.conftest import Served
from tunix_rt.errors import InputError, MachineError
from tunix_rt.serving.guard import HEADERS
from tunix_rt.serving.server import TOKEN_VARIABLE, listen, read_token

Serve = Callable[..., Served]
Closing = Callable[[httpx.Client], httpx.Client]
TEXT: dict[str, Any] = {"model": "ruled", "prompt": "abc", "max_tokens": 2}
CHAT: dict[str, Any] = {"model": "ruled", "messages": [{"role": "user", "content": "abc"}], "max_tokens": 2}


@pytest.fixture
def closing() -> Iterator[Closing]:
    """Close a client when the test is over."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def asked(serve_ruled: Serve, closing: Closing) -> Callable[..., httpx.Response]:
    client = closing(httpx.Client(base_url=f"{serve_ruled().url}/v1"))

    def post(given: dict[str, Any], **changes: Any) -> httpx.Response:
        return client.post("chat/completions" if "messages" in given else "completions", json=given | changes)

    return post


def test_every_refusal_has_a_name(asked: Callable[..., httpx.Response]) -> None:
    assistant = [{"role": "assistant", "content": "so"}]
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    talk = [*CHAT["messages"], *assistant, *CHAT["messages"]]
    for given, changes, param, said in (
        (TEXT, {"model": "other"}, "model", "served: ruled/0123"),
        (TEXT, {"logit_bias": {"1": 5}}, "logit_bias", "unsupported parameter"),
        (TEXT, {"temprature": 1}, "temprature", "unsupported parameter"),
        (CHAT, {"tools": [{}]}, "tools", "unsupported parameter"),
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format", "unsupported parameter"),
        (TEXT, {"temperature": -1}, "temperature", "greater than or equal to 0"),
        (TEXT, {"n": 0}, "n", "greater than or equal to 1"),
        (TEXT, {"max_tokens": 49}, "max_tokens", "at most 48"),
        (TEXT, {"max_tokens": 0}, "max_tokens", "only with echo"),
        (TEXT, {"prompt": "a" * 64}, "prompt", "64 tokens, and the model 64 positions"),
        (TEXT, {"prompt": "ä"}, "prompt", "not in the vocabulary: 'ä'"),
        (TEXT, {"prompt": ""}, "prompt", "empty"),
        (TEXT, {"prompt": [999]}, "prompt", "token 999: the vocabulary ends at"),
        (TEXT, {"stop": ""}, "stop", "at least 1 character"),
        (TEXT, {"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        (CHAT, {"messages": []}, "messages", "at least 1 item"),
        (CHAT, {"messages": assistant}, "messages", "the assistant's"),
        (CHAT, {"messages": image}, "messages", "text"),
        (CHAT, {"messages": talk}, "messages", "this format has one prompt"),
        (CHAT, {"top_logprobs": 3}, "top_logprobs", "only with logprobs"),
    ):
        response = asked(given, **changes)
        error = response.json()["error"]
        assert response.status_code == (404 if param == "model" else 400), (changes, response.text)
        assert error["param"] == param and said in error["message"], (changes, error)
        assert error["type"] == "invalid_request_error"


def test_what_asks_for_nothing_is_accepted(asked: Callable[..., httpx.Response]) -> None:
    neutral = {"logit_bias": None, "presence_penalty": 0, "user": "me", "best_of": 1, "top_p": 1, "top_k": -1}
    response = asked(TEXT, **neutral, frequency_penalty=0.0, suffix=None)
    assert response.status_code == 200 and response.json()["choices"][0]["text"] == "ab"
    assert asked(CHAT, tools=[], response_format={"type": "text"}, metadata={"a": "b"}).status_code == 200


def test_no_other_site_asks(serve_ruled: Serve, closing: Closing) -> None:
    """A page that a browser here has open, and a name of another site that leads here."""
    url = serve_ruled().url
    client = closing(httpx.Client(base_url=url))
    for headers, status in (
        ({}, 200),
        ({"Origin": url}, 200),
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "example.org"}, 403),
        ({"Host": "localhost:1"}, 200),
    ):
        assert client.get("/v1/models", headers=headers).status_code == status, headers
    sent = client.post("/v1/completions", content='{"model": "ruled", "prompt": "a"}')
    assert sent.status_code == 400, "as a form of another site sends it: not as JSON"
    large = client.post("/v1/completions", content=iter([b" " * 2**20] * 17))
    assert large.status_code == 413 and "error" in large.json()


def test_a_token_is_asked_for(serve_ruled: Serve, closing: Closing, capfd: pytest.CaptureFixture[str]) -> None:
    client = closing(httpx.Client(base_url=serve_ruled(token="open-sesame").url))
    for path, headers, status in (
        ("/v1/models", {}, 401),
        ("/v1/models", {"Authorization": "Bearer wrong"}, 401),
        ("/v1/models", {"Authorization": "Bearer open-sesame"}, 200),
        ("/", {}, 200),
        ("/static/chat.js", {}, 200),
        ("/static/../app.py", {}, 401),
        ("/health", {}, 200),
    ):
        response = client.get(path, headers=headers)
        assert response.status_code == status, (path, headers)
        assert all(response.headers[name] == value for name, value in HEADERS.items())
    assert "sesame" not in "".join(capfd.readouterr())


def test_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=rf"0\.0\.0\.0 can be reached.*{TOKEN_VARIABLE}"):
        listen("0.0.0.0", 0, None)
    with listen("127.0.0.1", 0, None) as taken, pytest.raises(MachineError, match=r"already in use.*--port"):
        listen("127.0.0.1", taken.getsockname()[1], None)
    file = tmp_path / "token"
    with pytest.raises(InputError, match="No such file"):
        read_token(file)
    file.write_text(" secret\n")
    monkeypatch.setenv(TOKEN_VARIABLE, "another")
    assert (read_token(file), read_token(None)) == ("secret", "another")
