"""`POST /v1/completions`: texts, or ids of tokens, that the model continues as they are; and how likely they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tunix_rt.backends.sampling import row_seed
from tunix_rt.backends.scoring import Scored
from tunix_rt.files import JsonObject
from tunix_rt.inference.answer import Answerer, Prompt
from tunix_rt.inference.detokenize import Detokenizer
from tunix_rt.inference.writing import Likely, Passage, Writing
from tunix_rt.serving.errors import refused
from tunix_rt.serving.exchange import Exchange
from tunix_rt.serving.model import ServedModel, drawn_seed
from tunix_rt.serving.requests import CompletionRequest
from tunix_rt.serving.shapes import Columns, is_end


@dataclass(slots=True)
class TextChoice:
    """Implements `exchange.Choice`."""

    index: int
    answerer: Answerer
    prompt: Prompt
    writing: Writing
    echo: str
    """What stands before the continuation: the prompt, or nothing."""
    scored: Scored | None
    """The prompt's own tokens, if they are shown."""
    logprobs: bool
    columns: Columns = field(default_factory=Columns)
    sent: int = 0
    """Characters of the continuation that a stream has said."""

    def __post_init__(self) -> None:
        if self.scored is not None:
            self._add_prompt(self.scored)

    def opening(self) -> JsonObject | None:
        return self._choice(self.echo) if self.echo or self.scored is not None else None

    def chunk(self) -> JsonObject | None:
        new, self.sent = self.writing.text[self.sent :], len(self.writing.text)
        ended = self.writing.finish_reason is not None
        return self._choice(new) if new or ended or (self.logprobs and self.columns) else None

    def whole(self) -> JsonObject:
        return self._choice(self.echo + self.writing.text)

    def add(self, passage: Passage) -> None:
        """The tokens of a passage; the one that ended the answer too, since clients count tokens from the end."""
        for one in passage.tokens:
            self.columns.add(one.token.bytes, one.token.logprob, one.top, len(self.echo) + one.start)
        if is_end(passage, self.writing.stopped):
            end = passage.end
            token, logprob = (b"", None) if end is None else (end.bytes, end.logprob)
            self.columns.add(token, logprob, (), len(self.echo) + len(self.writing.text))

    def _add_prompt(self, scored: Scored) -> None:
        tokenizer, ids, top = self.answerer.reader.tokenizer, self.prompt.ids, scored.top
        spelling = Detokenizer(tokenizer, special=True)
        likeliest: list[tuple[Likely, ...]] = [()]
        groups = []
        for place, token in enumerate(ids.tolist()):
            if place and top is not None:
                pairs = zip(top.ids[place - 1].tolist(), top.logprobs[place - 1].tolist(), strict=True)
                likeliest.append(tuple(Likely(other, spelling.bytes_of(other), logprob) for other, logprob in pairs))
            groups.append(spelling.add(token))
        groups.append(spelling.end())
        logprobs = [None, *scored.logprobs.tolist()]
        # The token with which a text begins stands before it, and is not in it unless the client wrote it.
        place, offset = 0, min(0, len(self.echo) - len(tokenizer.decode(ids.tolist(), special=True)))
        for group in filter(None, groups):
            for own in group.bytes:
                alternatives = likeliest[place] if top is not None else ()
                self.columns.add(own, logprobs[place], alternatives, min(max(0, offset), len(self.echo)))
                place += 1
            offset += len(group.text)

    def _choice(self, text: str) -> JsonObject:
        logprobs = self.columns.take() if self.logprobs else None
        return {"index": self.index, "text": text, "logprobs": logprobs, "finish_reason": self.writing.finish_reason}


async def complete(
    model: ServedModel, body: CompletionRequest, is_disconnected: Callable[[], Awaitable[bool]]
) -> Exchange:
    """Begin to answer. Raises ApiError, ClientDisconnected."""
    prompts = [model.prompt(given) for given in body.prompts]
    settings = model.settings(body, body.max_tokens, prompts)
    if body.max_tokens == 0 and not body.echo:
        raise refused("max_tokens is 0: only with echo: true", "max_tokens")
    scored: Sequence[Scored | None] = [None] * len(prompts)
    if body.echo and body.logprobs is not None:
        scored = await model.scored([prompt.ids for prompt in prompts], body.logprobs, is_disconnected)
    seed = drawn_seed() if body.seed is None else body.seed
    places = [(place, sample) for place in range(len(prompts)) for sample in range(body.choices)]
    ticket = None
    if body.max_tokens != 0:
        rows = [(prompts[at].ids, row_seed(seed, *prompts[at].ids.tolist(), sample)) for at, sample in places]
        ticket = model.submit(rows, settings, body.logprobs or 0)
    choices = [_choice(model, body, index, prompts[at], scored[at]) for index, (at, _) in enumerate(places)]
    num_prompt = sum(len(prompt.ids) for prompt in prompts)
    kinds = "text_completion", "text_completion", "cmpl"
    return Exchange(model, choices, ticket, *kinds, num_prompt, body.includes_usage, seed)


def _choice(
    model: ServedModel, body: CompletionRequest, index: int, prompt: Prompt, scored: Scored | None
) -> TextChoice:
    writing = Writing(model.answerer.reader.tokenizer, body.stops)
    if body.max_tokens == 0:
        writing.finish_reason = "length"
    echo = prompt.text if body.echo else ""
    return TextChoice(index, model.answerer, prompt, writing, echo, scored, body.logprobs is not None)
