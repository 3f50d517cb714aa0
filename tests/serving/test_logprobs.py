"""Log-probabilities in answers: which token they are of, where in the text it stands, and what is no number."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import tokenizers
from tokenizers.processors import TemplateProcessing

from tests.serving.conftest import Served, answerer_of
from tunix_rt.models.tokenizer import Tokenizer, train_bpe, train_char

Serve = Callable[..., Served]
Closing = Callable[[httpx.Client], httpx.Client]
ECHO = {"model": "ruled", "max_tokens": 2, "echo": True, "logprobs": 1}


@pytest.mark.parametrize("begin", [None, "<s>"])
def test_offsets_are_of_the_text_that_is_shown(
    serve_ruled: Serve, closing: Closing, tmp_path: Path, begin: str | None
) -> None:
    """The token with which a text begins has no place in a text that is without it."""
    train_char(["abc"], None, tmp_path)
    if begin is not None:
        inner = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        inner.add_special_tokens([begin])
        special = [(begin, inner.token_to_id(begin))]
        inner.post_processor = TemplateProcessing(single=f"{begin} $A", pair="$A $B", special_tokens=special)
        inner.save(str(tmp_path / "tokenizer.json"))
    client = closing(httpx.Client(base_url=serve_ruled(make=lambda: answerer_of(Tokenizer.load(tmp_path))).url))

    def offsets(prompt: str | list[int]) -> list[int]:
        choice = client.post("/v1/completions", json=ECHO | {"prompt": prompt}).json()["choices"][0]
        found: list[int] = choice["logprobs"]["text_offset"]
        assert len(found) == len(choice["logprobs"]["tokens"])
        return found[:-2]

    assert offsets("abca") == [0] * (begin is not None) + [0, 1, 2, 3]
    if begin is not None:
        assert offsets("<s>ab") == [0, 0, 4], "the client wrote it: it is in the text"


def test_a_character_of_several_tokens_is_streamed_whole(serve_ruled: Serve, closing: Closing, tmp_path: Path) -> None:
    """A token of it has its bytes, in whichever chunk."""
    train_bpe(["abc"], 258, tmp_path)
    client = closing(httpx.Client(base_url=serve_ruled(make=lambda: answerer_of(Tokenizer.load(tmp_path))).url))
    said = "👩‍👧 é"
    tokens = len(said.encode())
    given = {"model": "ruled", "prompt": said, "max_tokens": tokens, "stream": True, "logprobs": 1}
    with client.stream("POST", "/v1/completions", json=given) as stream:
        lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line and "[DONE]" not in line]
    chunks = [json.loads(line)["choices"][0] for line in lines]
    texts = [chunk["text"] for chunk in chunks]
    assert "".join(texts) == said and not any("\N{REPLACEMENT CHARACTER}" in text for text in texts)
    assert sum(len(chunk["logprobs"]["tokens"]) for chunk in chunks if chunk["logprobs"]) == tokens


def test_what_is_no_number_is_null(serve_ruled: Serve, closing: Closing) -> None:
    """As a model gives that has diverged: JSON has no NaN, and clients do not read one."""
    served = serve_ruled()
    client = closing(httpx.Client(base_url=served.url))
    asked: dict[str, Any] = {"model": "ruled", "max_tokens": 3}
    talk = [{"role": "user", "content": "abc"}]
    for value in (math.nan, -math.inf):
        for path, further in (
            ("completions", {"prompt": "abc", "logprobs": 2}),
            ("chat/completions", {"messages": talk, "logprobs": True, "top_logprobs": 2}),
        ):
            for stream in (False, True):
                served.batch.logprob = value
                sent = client.post(f"/v1/{path}", json=asked | further | {"stream": stream})
                lines = [line.removeprefix("data: ") for line in sent.text.splitlines() if line[-1:] == "}"]
                for line in lines:
                    json.loads(line, parse_constant=_refuse)
                assert sent.status_code == 200 and lines and "null" in sent.text


def _refuse(constant: str) -> None:
    raise AssertionError(constant)
