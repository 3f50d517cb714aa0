"""A conversation in the terminal: each answer is streamed, then shown as the run's format reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TextIO

from tunix_rt.backends.interface import ContinuousBatch
from tunix_rt.errors import InputError
from tunix_rt.inference.answer import Answer, Answerer
from tunix_rt.inference.writing import Passage
from tunix_rt.terminal import say, visible
from tunix_rt.traces.trace import Message

KEPT = "\n\t"
"""What is not printable and shown as it is."""


@dataclass(slots=True)
class Conversation:
    """What was said so far, and where it is shown."""

    model: Answerer
    stream: TextIO
    said: list[Message] = field(default_factory=list)
    batch: ContinuousBatch = field(init=False)
    """One for all questions: opening it may copy the model's weights, and it keeps what was read so far."""

    def __post_init__(self) -> None:
        self.batch = self.model.batch(1)

    def explain(self) -> None:
        """Say once if each question stands alone."""
        if not self.model.converses:
            say("the run's format shows one prompt: each question is asked by itself")

    def begin_anew(self) -> None:
        """Forget what was said."""
        self.said.clear()

    def try_to_ask(self, question: str) -> None:
        """As `ask`; a question that cannot be asked is refused, and the conversation goes on."""
        try:
            self.ask(question)
        except InputError as error:
            say(str(error))

    def ask(self, question: str) -> Answer:
        """Show the answer to a question after all that was said. Raises InputError."""
        messages = [*self.said, Message("user", question)]
        answer = self.model.answer(messages, self._show, self.batch)
        self.stream.write("\n")
        self.stream.write(_conclusion(answer))
        self.stream.flush()
        if self.model.converses:
            self.said = [*messages, answer.message]
        return answer

    def _show(self, passage: Passage) -> None:
        self.stream.write(visible(passage.text, keep=KEPT))
        self.stream.flush()


def _conclusion(answer: Answer) -> str:
    if answer.finish_reason == "length":
        return f"(stopped after {answer.num_tokens} tokens, the end was not reached)\n"
    if answer.parsed.answer is None:
        return f"(not in the format: {answer.parsed.problem})\n"
    return f"→ {visible(answer.parsed.answer, keep=KEPT)}\n"
