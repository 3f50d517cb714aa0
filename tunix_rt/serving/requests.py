"""The bodies of requests. What this server cannot do is refused by name, but for values that ask for nothing."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict, StrictInt, model_validator

from tunix_rt.serving.errors import refused

MOST_CHOICES = 128
MOST_PROMPTS = 1024
"""Of one request; each has to be tokenized before anything is answered."""
MOST_STOPS = 16
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
"""Parameters of OpenAI's interface that are not supported → values with which they ask for nothing, as null does."""
LABELS = frozenset(["metadata", "prompt_cache_key", "safety_identifier", "user"])
"""Parameters that change no answer."""

Stop = Annotated[str, MinLen(1), MaxLen(256)]


class StreamOptions(BaseModel):
    """How a stream is sent."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Body(BaseModel):
    """What both endpoints take. Defaults are the run's own declared settings."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())
    model: str
    n: Annotated[StrictInt, Ge(1), Le(MOST_CHOICES)] | None = None
    seed: StrictInt | None = None
    stop: Stop | Annotated[list[Stop], MaxLen(MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Ge(0), Le(100)] | None = None
    top_p: Annotated[float, Ge(0), Le(1)] | None = None
    top_k: Annotated[StrictInt, Ge(-1)] | None = None
    """An extension, as in vLLM; -1 and 0: all."""
    max_tokens: Annotated[StrictInt, Ge(0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_half_characters(cls, given: Any) -> Any:
        """JSON can spell half of a surrogate pair, which is no text: no tokenizer takes it, no answer can quote it."""
        try:
            if isinstance(given, dict):  # it is bytes where the request does not say that they are JSON
                json.dumps(given, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise refused(f"{error.object[error.start : error.end]!r} is half a character: not UTF-8") from None
        return given

    @model_validator(mode="after")
    def _refuse_unsupported(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if value is not None and name not in LABELS and value not in NEUTRAL.get(name, ()):
                known = f" (only {', '.join(map(repr, NEUTRAL[name]))})" if name in NEUTRAL else ""
                raise refused(f"unsupported parameter: {name!r}{known}", name, "unsupported_parameter")
        if self.stream_options is not None and not self.stream:
            raise refused("stream_options: only with stream: true", "stream_options")
        return self

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with what it used."""
        return self.stream_options is not None and self.stream_options.include_usage


Ids = Annotated[list[Annotated[StrictInt, Ge(0)]], MinLen(1)]


class CompletionRequest(Body):
    """`POST /v1/completions`."""

    prompt: str | Annotated[list[str], MinLen(1)] | Ids | Annotated[list[Ids], MinLen(1)]
    echo: bool | None = None
    logprobs: Annotated[StrictInt, Ge(0), Le(20)] | None = None

    @model_validator(mode="after")
    def _refuse_many(self) -> Self:
        if len(self.prompts) > MOST_PROMPTS:
            raise refused(f"{len(self.prompts)} prompts in one request, at most {MOST_PROMPTS} are answered", "prompt")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each of them, as text or as ids of tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[int(token) for token in self.prompt]]
        return list(self.prompt)


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="after")
    def _refuse_unsupported(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if value not in (None, [], "") and name not in ("annotations", "tunix_rt"):
                raise refused(f"unsupported field of a message: {name!r}", f"messages.{name}", "unsupported_parameter")
        return self

    @property
    def text(self) -> str:
        """What is said in it."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ChatRequest(Body):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], MinLen(1)]
    max_completion_tokens: Annotated[StrictInt, Ge(1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[StrictInt, Ge(0), Le(20)] | None = None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise refused("top_logprobs: only with logprobs: true", "top_logprobs")
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise refused("max_tokens and max_completion_tokens say different things", "max_tokens")
        if self.messages[-1].role == "assistant":
            raise refused("the last message is the assistant's: there is nothing to answer", "messages")
        return self
