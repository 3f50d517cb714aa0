"""A trace's prompt and completion as a conversation in the tokenizer's own chat template.

In: prompt and completion as text. Out: the rendered text before and after the completion. The template is a
foreign program: that it leaves the text as it is, and puts the end token right behind it, is checked on every
trace.
"""

from __future__ import annotations

from tunix_rt.errors import DataError
from tunix_rt.models.tokenizer import Tokenizer

PROBE = "⟦prompt⟧"


class ChatTurn:
    """One user's turn and one assistant's, under a system prompt (None: the template's own default)."""

    def __init__(self, tokenizer: Tokenizer, system: str | None) -> None:
        """Raises ModelError without a chat template, DataError where the template hides the prompt."""
        self._tokenizer = tokenizer
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self._head, probe, self._tail = self.opening(PROBE).rpartition(PROBE)
        if not probe:
            raise DataError("format.kind: the chat template does not show the user's text; format=plain")

    def opening(self, prompt: str) -> str:
        """The conversation up to where the assistant begins to write."""
        return self._tokenizer.chat([*self._system, {"role": "user", "content": prompt}], True)

    def closing(self, prompt: str, completion: str) -> str:
        """What ends the assistant's turn: the end token. Text that the template puts behind it is dropped.

        Raises DataError, with both sides, where the template changes prompt or completion.
        """
        opening = self.opening(prompt)
        if self.prompt_of(opening) != prompt:
            raise DataError(f"prompt: the chat template renders {_end(prompt)} as {_end(opening)}")
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        whole = self._tokenizer.chat([*self._system, *messages], False)
        expected = opening + completion + self._tokenizer.end_token
        if not whole.startswith(expected):
            at = next((i for i, (a, b) in enumerate(zip(whole, expected, strict=False)) if a != b), len(whole))
            raise DataError(
                f"the chat template does not continue its own prompt with the completion and the "
                f"end token: expected {_around(expected, at)}, got {_around(whole, at)} (character {at}); "
                f"white space at an end of the text is often stripped: change the data, format.step_end or "
                f"format.answer_start"
            )
        return self._tokenizer.end_token

    def prompt_of(self, text: str) -> str:
        """The prompt in an opening; of any other text what is left without the template's parts."""
        return text.removeprefix(self._head).removesuffix(self._tail)


def _end(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"…{text[-80:]!r}"


def _around(text: str, at: int) -> str:
    return repr(text[max(0, at - 30) : at + 30])
