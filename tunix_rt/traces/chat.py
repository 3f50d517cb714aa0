"""A trace's prompt and completion as a conversation in the tokenizer's own chat template.

The template is an external program: every trace is checked that it leaves the text unchanged and puts the end token
right after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from tunix_rt.config.format import ChatFormat, ThinkChatFormat
from tunix_rt.errors import DataError
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.trace import Message

PROBE = "⟦prompt⟧"


class ChatTurn:
    """A user's turn and the assistant's, after earlier ones, with a system prompt (None: the template's own)."""

    def __init__(self, tokenizer: Tokenizer, config: ChatFormat | ThinkChatFormat) -> None:
        """Raises ModelError without a chat template, DataError if the template hides the prompt."""
        self._tokenizer = tokenizer
        self._config = config
        self._head, probe, self._tail = self.prefix(PROBE, ()).rpartition(PROBE)
        if not probe:
            raise DataError("format.kind: the chat template does not show the user's text; format=plain")

    def prefix(self, prompt: str, history: Sequence[Message]) -> str:
        """The conversation up to where the assistant begins to write."""
        return self._render([*history, Message("user", prompt)], True)

    def previous_turns(self, prompt: str, history: Sequence[Message]) -> list[tuple[int, int]]:
        """[start, end) in the prefix of each previous turn of the assistant, its end token included.

        Raises DataError, with both sides, if the prefix is not what the model saw and wrote at that turn.
        """
        prefix, spans = self.prefix(prompt, history), []
        for place in range(1, len(history), 2):
            asked = self._render(history[:place], True)
            said = history[place].content
            end = self._end(prefix, [asked + said], f"turn {place // 2 + 1} of the assistant: ")
            spans.append((len(asked), len(asked) + len(said) + len(end)))
        return spans

    def suffix(self, prompt: str, history: Sequence[Message], completion: str, shown: Sequence[str]) -> str:
        """The end token of the assistant's turn. Text that the template appends to it is dropped.

        `shown`: the training texts up to there. Raises DataError, with both sides, if the template changes the prompt,
        or renders none of `shown`.
        """
        prefix = self.prefix(prompt, history)
        changed = self.prompt_of(prefix) != prompt if not history else not prefix.endswith(prompt + self._tail)
        if changed:
            raise DataError(f"prompt: the chat template renders {_last(prompt)} as {_last(prefix)}")
        whole = self._render([*history, Message("user", prompt), Message("assistant", completion)], False)
        return self._end(whole, shown, "")

    def prompt_of(self, text: str) -> str:
        """The prompt in a prefix; for any other text, what remains without the template's parts."""
        return text.removeprefix(self._head).removesuffix(self._tail)

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        config = self._config
        system = [] if config.system is None else [Message("system", config.system)]
        said = [asdict(message) for message in (*system, *messages)]
        return self._tokenizer.chat(said, add_generation_prompt, config.variables, config.date)

    def _end(self, whole: str, shown: Sequence[str], where: str) -> str:
        """The end token that follows the text of `shown` with which `whole` begins."""
        for text in shown:
            for token in self._tokenizer.end_tokens:
                if whole.startswith(text + token):
                    return token
        expected = shown[0] + self._tokenizer.end_token
        at = next((i for i, (a, b) in enumerate(zip(whole, expected, strict=False)) if a != b), len(whole))
        hint = "white space at an end is often stripped: change the data, format.step_end or format.answer_start"
        if "<think>" in whole + expected and isinstance(self._config, ChatFormat):
            hint = (
                "the template writes <think> by itself: format=think_chat, or turn it off with "
                "format.variables={enable_thinking: false}"
            )
        raise DataError(
            f"{where}the chat template does not continue its own prompt with the completion and the "
            f"end token: expected {_around(expected, at)}, got {_around(whole, at)} (character {at}); {hint}"
        )


def _last(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"…{text[-80:]!r}"


def _around(text: str, at: int) -> str:
    return repr(text[max(0, at - 30) : at + 30])
