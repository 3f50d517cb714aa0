"""`POST /v1/chat/completions`: a conversation in the run's own format."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject
from tunix_rt.inference.answer import Answerer, Prompt, PromptTooLong
from tunix_rt.inference.writing import Passage, Writing, Written
from tunix_rt.serving.errors import refused
from tunix_rt.serving.exchange import Exchange
from tunix_rt.serving.model import CONTEXT_LENGTH_EXCEEDED, ServedModel, drawn_seed
from tunix_rt.serving.requests import ChatMessage, ChatRequest
from tunix_rt.serving.shapes import chat_logprobs, report
from tunix_rt.traces.thoughts import FIELD
from tunix_rt.traces.trace import Message


@dataclass(slots=True)
class ChatChoice:
    """Implements `exchange.Choice`."""

    index: int
    answerer: Answerer
    prompt: Prompt
    writing: Writing
    logprobs: bool
    tokens: list[Written] = field(default_factory=list)
    sent: dict[str, str] = field(default_factory=lambda: {FIELD: "", "content": ""})

    def opening(self) -> JsonObject:
        return self._choice(None, delta={"role": "assistant", "content": ""})

    def add(self, passage: Passage) -> None:
        self.tokens += passage.tokens

    def chunk(self) -> JsonObject | None:
        ended = self.writing.finish_reason is not None
        now = dict(zip(self.sent, self.answerer.apart(self.prompt).split(self.writing.text, whole=ended), strict=True))
        delta = {name: text[len(self.sent[name]) :] for name, text in now.items() if text != self.sent[name]}
        if not (delta or ended or (self.logprobs and self.tokens)):
            return None
        self.sent = now
        return self._choice(self._taken(), delta=delta, **({"tunix_rt": self._report()} if ended else {}))

    def whole(self) -> JsonObject:
        answer = self.answerer.read(self.writing, self.prompt)
        message = {"role": "assistant", "content": answer.said, "refusal": None}
        if answer.thoughts:
            message[FIELD] = answer.thoughts
        return self._choice(self._taken(), message=message, tunix_rt=report(answer))

    def _report(self) -> JsonObject:
        return report(self.answerer.read(self.writing, self.prompt))

    def _taken(self) -> JsonObject | None:
        taken, self.tokens = self.tokens, []
        return chat_logprobs(taken) if self.logprobs else None

    def _choice(self, logprobs: JsonObject | None, **content: JsonObject) -> JsonObject:
        return {"index": self.index, **content, "logprobs": logprobs, "finish_reason": self.writing.finish_reason}


def chat(model: ServedModel, body: ChatRequest) -> Exchange:
    """Begin to answer. Raises ApiError."""
    answerer, messages = model.answerer, [_message(message) for message in body.messages]
    try:
        prompt = answerer.conversation(messages)
    except InputError as error:
        code = CONTEXT_LENGTH_EXCEEDED if isinstance(error, PromptTooLong) else None
        raise refused(str(error), "messages", code) from None
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if limit == 0:
        raise refused("max_tokens is 0: an answer has at least one token", "max_tokens")
    settings = model.settings(body, limit, [prompt])
    seed = drawn_seed() if body.seed is None else body.seed
    rows = [(prompt.ids, answerer.seed_of(messages, seed, sample)) for sample in range(body.choices)]
    ticket = model.submit(rows, settings, body.top_logprobs or 0)
    choices = [
        ChatChoice(index, answerer, prompt, Writing(answerer.reader.tokenizer, body.stops), bool(body.logprobs))
        for index in range(body.choices)
    ]
    kinds = "chat.completion", "chat.completion.chunk", "chatcmpl"
    return Exchange(model, choices, ticket, *kinds, len(prompt.ids), body.includes_usage, seed)


def _message(given: ChatMessage) -> Message:
    fields = {name: value for name in ("name", FIELD) if (value := getattr(given, name)) is not None}
    return Message(given.role, given.text, fields)
