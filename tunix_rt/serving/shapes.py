"""Answers in the shapes of OpenAI's interface."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunix_rt.files import JsonObject
from tunix_rt.inference.answer import Answer
from tunix_rt.inference.writing import Likely, Passage, Written


def spelled(token: bytes) -> str:
    """A token as text; a part of a character as `bytes:\\xe2`, as OpenAI shows it."""
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{value:02x}" for value in token)


def chat_logprobs(tokens: Sequence[Written]) -> JsonObject:
    """`choices[].logprobs` of a chat completion."""
    return {"content": [_entry(one.token) | {"top_logprobs": [_entry(other) for other in one.top]} for one in tokens]}


def _entry(one: Likely) -> JsonObject:
    return {"token": spelled(one.bytes), "logprob": _finite(one.logprob), "bytes": list(one.bytes)}


def _finite(logprob: float | None) -> float | None:
    """None for what JSON has no number for: a diverged model's, or of a token that cannot follow."""
    return logprob if logprob is not None and math.isfinite(logprob) else None


class Columns:
    """`choices[].logprobs` of a text completion, which has a list for each kind of value."""

    def __init__(self) -> None:
        self._found: JsonObject = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}

    def add(self, token: bytes, logprob: float | None, top: Sequence[Likely], offset: int) -> None:
        """One token; `logprob` None: the first of a prompt, or an end that the backend cannot name."""
        own, logprob_shown = spelled(token), _finite(logprob)
        likely = {spelled(other.bytes): _finite(other.logprob) for other in reversed(top)}
        for name, value in (
            ("tokens", own),
            ("token_logprobs", logprob_shown),
            # The token's own number stands for it, as it were: exactly the largest if it is the likeliest.
            ("top_logprobs", None if logprob is None else likely | {own: logprob_shown}),
            ("text_offset", offset),
        ):
            self._found[name].append(value)

    def __bool__(self) -> bool:
        return bool(self._found["tokens"])

    def take(self) -> JsonObject:
        """What was added since it was taken last."""
        found, self._found = self._found, {name: [] for name in self._found}
        return found


def report(answer: Answer) -> JsonObject:
    """An answer in the terms of the run's format: what this server knows and OpenAI's interface has no field for."""
    parsed = answer.parsed
    return {"steps": list(parsed.steps), "answer": parsed.answer, "problem": parsed.problem}


def usage(num_prompt: int, num_new: int) -> JsonObject:
    """Tokens; those that end an answer do not count."""
    return {"prompt_tokens": num_prompt, "completion_tokens": num_new, "total_tokens": num_prompt + num_new}


def is_end(passage: Passage, stopped: bool) -> bool:
    """Whether a token has ended the answer."""
    return passage.finish_reason == "stop" and not stopped
