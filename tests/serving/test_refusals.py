"""What is not answered, and that it is said in OpenAI's shape: names, numbers, codes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
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


def test_a_body_that_is_no_object_is_called_so(serve_ruled: Serve, closing: Closing) -> None:
    client = closing(httpx.Client(base_url=f"{serve_ruled().url}/v1"))
    for sent, headers, said in (
        (b"{", {"Content-Type": "application/json"}, "body: no valid JSON"),
        (json.dumps(TEXT).encode(), {}, "with the header Content-Type: application/json"),
        (b"[]", {"Content-Type": "application/json"}, "body: no JSON object"),
    ):
        error = client.post("completions", content=sent, headers=headers)
        assert error.status_code == 400 and said in error.json()["error"]["message"], error.text
        assert error.json()["error"]["param"] is None


def test_what_is_too_long_has_a_code_for_clients(asked: Callable[..., httpx.Response]) -> None:
    long = [{"role": "user", "content": "a" * 64}]
    for given, changes in ((TEXT, {"prompt": "a" * 64}), (CHAT, {"messages": long}), (CHAT, {"max_tokens": 49})):
        assert asked(given, **changes).json()["error"]["code"] == "context_length_exceeded", changes


def test_half_characters_are_refused(serve_ruled: Serve, closing: Closing) -> None:
    """JSON can spell half of a surrogate pair, anywhere: it is no text."""
    client = closing(httpx.Client(base_url=f"{serve_ruled().url}/v1"))
    half = "\ud800"
    for path, given in (
        ("completions", TEXT | {"prompt": half}),
        ("completions", TEXT | {"model": half}),
        ("completions", TEXT | {half: 1}),
        ("chat/completions", CHAT | {"messages": [{"role": "user", "content": half}]}),
        ("chat/completions", CHAT | {"stop": [half]}),
    ):
        sent = client.post(path, content=json.dumps(given), headers={"Content-Type": "application/json"})
        assert sent.status_code == 400 and r"'\ud800' is half a character" in sent.json()["error"]["message"], given


def test_what_can_never_fit_is_refused_for_good(serve_ruled: Serve, closing: Closing) -> None:
    """With 400 and the limit, not with 503, after which clients ask again; what fits an idle server is answered."""
    client = closing(httpx.Client(base_url=f"{serve_ruled(rows=1, queue=2).url}/v1"))
    for changes, param in (({"n": 4}, "n"), ({"prompt": ["a"] * 4}, "prompt")):
        error = client.post("completions", json=TEXT | changes)
        assert error.status_code == 400 and error.json()["error"]["param"] == param
        assert "4 answers" in error.text and "room for 3" in error.text
    assert client.post("chat/completions", json=CHAT | {"n": 4}).status_code == 400
    many = client.post("completions", json=TEXT | {"prompt": ["a"] * 1025})
    assert many.status_code == 400 and "1025 prompts" in many.text and "at most 1024" in many.text
    assert len(client.post("completions", json=TEXT | {"n": 3}).json()["choices"]) == 3
    scored = client.post(
        "completions", json=TEXT | {"prompt": ["a"] * 20, "max_tokens": 0, "echo": True, "logprobs": 1}
    )
    assert len(scored.json()["choices"]) == 20, "texts are scored in portions that the queue has room for"


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
        ({"Host": "["}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "localhost:1"}, 200),
    ):
        assert client.get("/v1/models", headers=headers).status_code == status, headers
    sent = client.post("/v1/completions", content='{"model": "ruled", "prompt": "a"}')
    assert sent.status_code == 400, "as a form of another site sends it: not as JSON"
    large = client.post("/v1/completions", content=iter([b" " * 2**20] * 17))
    assert large.status_code == 413 and "error" in large.json()


def test_a_failure_of_the_server_has_openais_shape(
    serve_ruled: Serve, closing: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve_ruled()
    client = closing(httpx.Client(base_url=served.url))
    monkeypatch.setattr(served.engine, "describe", lambda: 1 / 0)
    response = client.post("/v1/completions", json=TEXT)
    assert response.status_code == 500 and response.json()["error"]["type"] == "server_error"
    assert "division" not in response.text, "what happened inside is said on the server's terminal only"
    assert all(response.headers[name] == value for name, value in HEADERS.items())


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
        if path == "/health":
            assert response.json() == {"status": "ok"}, "the names of the runs are for who knows the token"
    known = client.get("/health", headers={"Authorization": "Bearer open-sesame"}).json()
    assert known == {"status": "ok", "rows": {"ruled/0123": {"active": 0, "waiting": 0}}}
    assert "sesame" not in "".join(capfd.readouterr())


def test_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=rf"0\.0\.0\.0 can be reached.*{TOKEN_VARIABLE}"):
        listen("0.0.0.0", 0, None)
    with listen("127.0.0.1", 0, None) as taken, pytest.raises(MachineError, match=r"already in use.*--port"):
        listen("127.0.0.1", taken.getsockname()[1], None)
    with pytest.raises(InputError, match=r"--host 'aaa.* is no name of a host"):
        listen("a" * 64, 0, "token")

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(MachineError, match="--host elsewhere: Name or service not known; name an address of this"):
        listen("elsewhere", 0, "token")


def test_tokens_that_no_request_could_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    with pytest.raises(InputError, match="No such file"):
        read_token(file)
    file.write_text(" secret\n")
    monkeypatch.setenv(TOKEN_VARIABLE, " another\n")
    assert (read_token(file), read_token(None)) == ("secret", "another")
    for given in ("pässword", "two\nlines"):
        monkeypatch.setenv(TOKEN_VARIABLE, given)
        with pytest.raises(InputError, match=rf"{TOKEN_VARIABLE}: .*printable ASCII"):
            read_token(None)
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"--token-file .*printable ASCII"):
        read_token(file)
    monkeypatch.setenv(TOKEN_VARIABLE, " ")
    with pytest.raises(InputError, match=f"{TOKEN_VARIABLE}: empty"):
        read_token(None)
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    assert read_token(None) is None
