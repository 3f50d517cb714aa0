"""A model that is served: what it is called, what it may be asked, and its answers as they are written."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tunix_rt.backends.interface import Request
from tunix_rt.backends.scoring import Scored, score
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject, digest
from tunix_rt.inference.answer import Answerer, Prompt
from tunix_rt.inference.writing import Passage, Writing
from tunix_rt.serving.errors import ApiError, full, refused
from tunix_rt.serving.requests import Body
from tunix_rt.serving.scheduler import Scheduler
from tunix_rt.serving.ticket import ClientDisconnected, Closed, Full, ModelFailed, Ticket

SCORED_AT_ONCE = 8
"""Texts."""
CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
"""OpenAI's code for a prompt that is too long, or too much asked for behind it: clients shorten it."""
SEEDS = 2**53
"""So that a seed is exact where numbers are doubles, as in a browser."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One run."""

    name: str
    created: int
    """Seconds since 1970."""
    answerer: Answerer
    scheduler: Scheduler
    longest_answer: int
    """Tokens that a client may ask for."""

    @property
    def max_positions(self) -> int:
        """Of prompt and answer together."""
        return self.answerer.reader.max_positions

    @property
    def fingerprint(self) -> str:
        """Changes with the run, the backend and its versions."""
        return f"fp_{digest({'run': self.name, 'backend': self.answerer.engine.describe()})[:12]}"

    def to_json(self) -> JsonObject:
        """The model as OpenAI lists it, and what is particular to it."""
        own = self.answerer.settings()
        sampling = {name: getattr(own, name) for name in ("max_new_tokens", "temperature", "top_k", "top_p")}
        about = {"converses": self.answerer.converses, "max_positions": self.max_positions, "defaults": sampling}
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "tunix_rt", "tunix_rt": about}

    def settings(self, body: Body, max_tokens: int | None, prompts: Sequence[Prompt]) -> GenerationConfig:
        """How a request wants its prompts answered. Raises ApiError if they cannot be, however idle the model is."""
        self._check_number(body, 0 if max_tokens == 0 else len(prompts) * body.choices)
        longest = max(len(prompt.ids) for prompt in prompts)
        room = self.max_positions - longest
        if room < (1 if max_tokens != 0 else 0):
            raise refused(
                f"the prompt has {longest} tokens, and the model {self.max_positions} positions for prompt and answer",
                "prompt",
                CONTEXT_LENGTH_EXCEEDED,
            )
        most = min(room, self.longest_answer)
        if max_tokens is not None and max_tokens > most:
            raise refused(
                f"max_tokens is {max_tokens}, at most {most} are possible: the prompt has {longest} tokens, the model "
                f"{self.max_positions} positions, and an answer here at most {self.longest_answer} tokens",
                "max_tokens",
                CONTEXT_LENGTH_EXCEEDED,
            )
        own = self.answerer.settings()
        changes: dict[str, Any] = {"max_new_tokens": max_tokens or min(own.max_new_tokens, most)}
        if body.temperature is not None:
            changes["temperature"] = body.temperature
        if body.top_p is not None:
            changes["top_p"] = None if body.top_p == 1 else body.top_p
        if body.top_k is not None:
            changes["top_k"] = None if body.top_k < 1 else body.top_k
        if body.top_p == 0:
            changes |= {"top_p": None, "top_k": 1}
        return self.answerer.settings(**changes)

    def _check_number(self, body: Body, answers: int) -> None:
        if answers > self.scheduler.capacity:
            raise refused(
                f"{answers} answers in one request (prompts times n); this server's --rows and --queue have room for "
                f"{self.scheduler.capacity}",
                "n" if body.choices > 1 else "prompt",
            )

    def prompt(self, given: str | list[int]) -> Prompt:
        """A text, or ids of tokens, to be continued as they are. Raises ApiError."""
        if isinstance(given, str):
            try:
                found = self.answerer.continuation(given)
            except InputError as error:
                raise refused(str(error), "prompt") from None
            if not len(found.ids):
                raise refused("the prompt is empty", "prompt")
            return found
        size = self.answerer.reader.tokenizer.vocab_size
        if max(given) >= size:
            raise refused(f"token {max(given)}: the vocabulary ends at {size - 1}", "prompt")
        return Prompt(self.answerer.reader.tokenizer.decode(given, special=True), np.array(given, np.int32))

    def submit(self, rows: Sequence[tuple[Int32, int]], settings: GenerationConfig, top: int) -> Ticket:
        """Have prompts, each with its seed, answered. Raises ApiError where there is no room."""
        try:
            return self.scheduler.submit([Request(0, ids, settings, seed, top) for ids, seed in rows])
        except (Full, Closed, ModelFailed) as error:
            raise _explained(error) from None

    async def passages(self, ticket: Ticket, writings: Sequence[Writing]) -> AsyncIterator[tuple[int, Passage]]:
        """(place, what is new) of each answer, until all have ended. Raises ApiError, ClientDisconnected."""
        try:
            async for place, piece in ticket.pieces():
                passage = writings[place].add(piece)
                if writings[place].stopped:
                    ticket.abort(place)
                yield place, passage
        except (Closed, ModelFailed) as error:
            raise _explained(error) from None

    async def scored(
        self, prompts: Sequence[Int32], top: int, is_disconnected: Callable[[], Awaitable[bool]]
    ) -> list[Scored]:
        """How likely prompts are, token by token, as long as somebody waits for it.

        Raises ApiError where there is no room, ClientDisconnected.
        """
        answerer, found = self.answerer, list[Scored]()
        size = min(SCORED_AT_ONCE, self.scheduler.capacity)
        for first in range(0, len(prompts), size):
            if await is_disconnected():
                raise ClientDisconnected
            part = prompts[first : first + size]
            work = partial(score, answerer.engine, answerer.state, part, top)
            try:
                found += await self.scheduler.compute(work, len(part))
            except (Full, Closed, ModelFailed) as error:
                raise _explained(error) from None
        return found


def drawn_seed() -> int:
    """A seed for who gives none; it is in the answer, so that the answer can be had again."""
    return secrets.randbelow(SEEDS)


def _explained(error: Full | Closed | ModelFailed) -> ApiError:
    if isinstance(error, ModelFailed):
        return ApiError(500, f"the model failed: {error}", None, "model_failed")
    return full(str(error) if isinstance(error, Full) else "the server is ending")
