"""A trace's messages and completion as a conversation in the tokenizer's own chat template.

The template is an external program. What it makes of each conversation is compared with the messages: their text must
be there unchanged, and the end token right after what the assistant says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

from tunix_rt.config.format import ChatFormat, ThinkChatFormat
from tunix_rt.errors import DataError, ModelError
from tunix_rt.files import JsonObject, to_json
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.trace import Message, Span
from tunix_rt.traces.turn import Turn, already_open, answers, around, last, with_arguments_as_text, without_calls

PROBE = "⟦prompt⟧"
SAID = "⟦completion⟧"
INSTRUCTIONS = ("system", "developer")


class ChatTurn:
    """A user's turn and the assistant's, after previous ones, with a system prompt (None: the template's own)."""

    def __init__(self, tokenizer: Tokenizer, config: ChatFormat | ThinkChatFormat) -> None:
        """Raises ModelError without a chat template, DataError if the template hides the prompt."""
        self._tokenizer, self._config = tokenizer, config
        asked = self._complete([Message("user", PROBE)])
        prompt, bare = self._render(asked, True), self._render(asked, False)
        shown = self._render([*asked, Message("assistant", SAID)], False)
        self._opening, self.lead, self.trail = "", "", ""
        if shown.startswith(prompt) and SAID in shown:
            lead, rest = shown[len(prompt) : shown.index(SAID)], shown[shown.index(SAID) + len(SAID) :]
            blank = rest[: len(rest) - len(rest.lstrip())]
            self.trail = blank if rest.lstrip().startswith(tokenizer.end_tokens) else ""
            if prompt == bare and lead.strip():  # the template knows no generation prompt
                self._opening = lead
            else:
                self.lead = lead
        self._head, probe, self._tail = (prompt + self._opening).rpartition(PROBE)
        if not probe:
            raise DataError("format.kind: the chat template does not show the user's text; format=plain")

    def prefix(self, messages: Sequence[Message], tools: Sequence[JsonObject] = ()) -> str:
        """The conversation up to where the assistant begins to write.

        Raises DataError naming a message whose text the template changes or hides.
        """
        said = self._complete(messages)
        prefix = self._render(said, True, tools) + self._opening
        if tools and prefix == self._render(said, True) + self._opening:
            raise DataError("the chat template does not show tools; use a model whose template does")
        if any("tool_calls" in m.fields for m in said):
            without = [without_calls(message) for message in said]
            if prefix == self._render(without, True, tools) + self._opening:
                what = "the tool calls of previous turns"
                raise DataError(f"the chat template does not show {what}; use a model whose template does")
        if len(said) == 1 and prefix == self._head + said[0].content + self._tail:
            return prefix
        self._places(prefix, said, tools)
        return prefix

    def previous_turns(self, messages: Sequence[Message], tools: Sequence[JsonObject] = ()) -> list[tuple[int, Span]]:
        """(place in `messages`, [start, end) in the prefix) of each previous turn of the assistant, its end included.

        Raises DataError if a turn does not end with an end token.
        """
        said = self._complete(messages)
        if all(message.role != "assistant" for message in said):
            return []
        prefix, found = self._render(said, True, tools) + self._opening, []
        added, places = len(said) - len(messages), self._places(prefix, said, tools)
        for place, (start, stop) in enumerate(places):
            if said[place].role == "assistant":
                where, calls = f"messages[{place - added}]: ", "tool_calls" in said[place].fields
                start -= len(self.lead) if prefix[:start].endswith(self.lead) else 0
                if calls and not said[place].content:
                    asked = self._render(said[:place], True, tools) + self._opening
                    if not prefix.startswith(asked):
                        raise DataError(f"{where}the chat template shows it otherwise than it asks for it")
                    start = stop = len(asked)
                end = self._end(prefix[stop : places[place + 1][0]], where, calls)
                found.append((place - added, (start, stop + end)))
        return found

    def turn(self, messages: Sequence[Message], tools: Sequence[JsonObject], said: Message) -> Turn:
        """The prefix, and what surrounds the assistant's message after it. Raises DataError with the cause."""
        prefix = self.prefix(messages, tools)
        opened = already_open(prefix)
        text = said.content
        whole = self._render([*self._complete(messages), said], False, tools)
        if said.fields.get("tool_calls"):
            without = self._render([*self._complete(messages), without_calls(said)], False, tools)
            return self._calling(prefix, whole, without, said)
        if opened and not text.startswith(opened) and ("</think>" not in text or "<think>" in text):
            raise DataError(
                f"the chat template's prompt ends with {opened!r}, and the assistant's text begins with "
                f"{text[:40]!r}, which does not go on from there: set what the template asks in format.variables "
                "(often enable_thinking), or leave such rows out"
            )
        text = text.removeprefix(opened)
        if whole.startswith(prefix + self.lead + text):
            rest = whole[len(prefix + self.lead + text) :]
            blank = rest[: len(rest) - len(rest.lstrip())]
            for token in self._tokenizer.end_tokens:
                if rest.startswith(blank + token) and not self._behind(rest[len(blank + token) :]):
                    return Turn(prefix, token, opened if text != said.content else "", self.lead, blank)
        for visible in answers(said.content):  # a template may show a finished turn without its thoughts
            bare = prefix.removesuffix(opened)
            for token in self._tokenizer.end_tokens:
                for gap in ("", "\n", "\n\n"):
                    if whole.startswith(bare + gap + visible + token):
                        return Turn(prefix, token, opened if text != said.content else "")
        if "</think>" in text:  # a template may write the tags of thoughts with other white space
            for token in self._tokenizer.end_tokens:
                if "".join(whole.split()).startswith("".join(f"{prefix}{text}{token}".split())):
                    return Turn(prefix, token, opened if text != said.content else "")
        raise DataError(self._cause(prefix, whole, text))

    def _behind(self, rest: str) -> str:
        """What stands behind the end of a turn besides white space and end tokens."""
        for token in self._tokenizer.end_tokens:
            rest = rest.replace(token, "")
        return rest.strip()

    def prompt_of(self, text: str) -> str:
        """The prompt in a prefix; for any other text, what remains without the template's parts."""
        return text.removeprefix(self._head).removesuffix(self._tail)

    def _complete(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template gets them: with `format.system` if there is none, `developer` as it knows it."""
        said = [replace(m, role="system") if m.role == "developer" and not self._developer else m for m in messages]
        if self._config.system is not None and said[0].role not in INSTRUCTIONS:
            return [Message("system", self._config.system), *said]
        return said

    @cached_property
    def _developer(self) -> bool:
        """Whether the template knows the role `developer`, as gpt-oss's does."""
        try:
            return SAID in self._render([Message("developer", SAID), Message("user", PROBE)], True)
        except (ModelError, DataError):
            return False

    def _render(self, messages: Sequence[Message], add_prompt: bool, tools: Sequence[JsonObject] = ()) -> str:
        shown = [message.shown() for message in messages]
        try:
            return self._tokenizer.chat(shown, add_prompt, self._config.variables, self._config.date, tools)
        except ModelError:
            if not any("tool_calls" in message for message in shown):
                raise
        shown = [with_arguments_as_text(message) for message in shown]  # DeepSeek's template joins them to text
        return self._tokenizer.chat(shown, add_prompt, self._config.variables, self._config.date, tools)

    def _places(self, prefix: str, said: Sequence[Message], tools: Sequence[JsonObject]) -> list[Span]:
        """[start, end) of each message's text in the prefix.

        The template is given marks in the place of the texts: what stands between them must be the same with the texts.
        """
        marks = [f"⟦{place}⟧" if message.content else "" for place, message in enumerate(said)]
        frame = self._frame(said, marks, tools)
        found, position, at = [], 0, 0
        for place, (mark, message) in enumerate(zip(marks, said, strict=True)):
            if not mark:
                found.append((position, position))
                continue
            begin = frame.find(mark, at)
            if begin < 0:
                raise DataError(f"messages[{place}]: the chat template does not show what {message.role!r} says")
            start = position + begin - at
            text = frame[at:begin] + message.content
            if not prefix.startswith(text, position):
                shown = prefix[start : start + len(message.content) + 20]
                trims = message.content.strip() != message.content
                hint = "; it trims white space: dataset.strip=true removes it in the data" if trims else ""
                who = "prompt" if place == len(said) - 1 else f"messages[{place}]"
                raise DataError(f"{who}: the chat template renders {last(message.content)} as {last(shown)}{hint}")
            position += len(text)
            found.append((start, position))
            at = begin + len(mark)
        if prefix[position:] != frame[at:]:
            raise DataError(f"the chat template changes the text after the last message: {last(prefix)}")
        return found

    def _frame(self, said: Sequence[Message], marks: Sequence[str], tools: Sequence[JsonObject]) -> str:
        if tools or any(message.fields for message in said):
            marked = [replace(message, content=mark) for message, mark in zip(said, marks, strict=True)]
            return self._render(marked, True, tools) + self._opening
        return self._plain_frame(tuple((message.role, mark) for message, mark in zip(said, marks, strict=True)))

    @lru_cache(maxsize=512)  # noqa: B019  # as long-lived as the formatter
    def _plain_frame(self, marked: tuple[tuple[str, str], ...]) -> str:
        return self._render([Message(role, mark) for role, mark in marked], True) + self._opening

    def _calling(self, prefix: str, whole: str, without: str, said: Message) -> Turn:
        """A turn with tool calls: the template writes them, so what it writes is what is learned."""
        rest = whole[len(prefix) :] if whole.startswith(prefix) else ""
        found = [(place, token) for token in self._tokenizer.end_tokens if (place := rest.find(token)) >= 0]
        place, token = min(found, default=(-1, ""))
        names = [call["function"]["name"] for call in said.fields["tool_calls"]]
        missing = [name for name in names if name not in rest[: max(place, 0)]]
        if place < 0 or self._behind(rest[place + len(token) :]) or missing or without == whole:
            raise DataError(
                f"the chat template does not show the assistant's tool calls ({to_json(missing or names)}) and an end "
                "token; use a model whose template does"
            )
        if not rest.startswith((said.content, self.lead + said.content)):
            raise DataError(
                f"the chat template trims or moves the text beside the tool calls ({last(said.content)}): "
                "dataset.strip=true removes white space in the data"
            )
        return Turn(prefix, token, calls=rest[:place])

    def _end(self, rest: str, where: str, calls: bool) -> int:
        """Where the end token ends in the text after a turn; it is what follows the turn's own text, or its `calls`."""
        for token in self._tokenizer.end_tokens:
            place = rest.find(token) if calls else (0 if rest.startswith(token) else -1)
            if place >= 0:
                return place + len(token)
        raise DataError(f"{where}{self._other_end(rest)}")

    def _other_end(self, rest: str) -> str:
        ends = " and ".join(repr(token) for token in self._tokenizer.end_tokens)
        special = [token for token in self._tokenizer.special_tokens if rest.startswith(token)]
        if special:
            name = max(special, key=len)
            return (
                f"the chat template ends the assistant's turn with {name!r}, but generation stops at {ends}: "
                f"model.stop_tokens=['{name}'] makes it stop there too"
            )
        return (
            f"the chat template writes no end token after the assistant's text ({last(rest[:20])} follows, generation "
            f"stops at {ends}): a model would never learn to stop; another template, or format=plain"
        )

    def _cause(self, prefix: str, whole: str, text: str) -> str:
        """Why the template's rendering is not the prompt, the text and an end token."""
        rest = whole[len(prefix) :] if whole.startswith(prefix) else None
        if rest is not None and text in rest and text == text.strip():
            return self._other_end(rest[rest.index(text) + len(text) :])
        if rest is not None and text.strip() in rest:
            return (
                f"the chat template trims white space at the ends of the assistant's text ({last(text)}): "
                "dataset.strip=true removes it in the data"
            )
        expected = prefix + text + self._tokenizer.end_token
        at = next((i for i, (a, b) in enumerate(zip(whole, expected, strict=False)) if a != b), len(whole))
        hint = "; its own prompt already closes <think>: format.variables" if "</think>" in prefix[-30:] else ""
        return (
            "the chat template does not continue its own prompt with the assistant's text and the end token: expected "
            f"{around(expected, at)}, got {around(whole, at)} (character {at}){hint}"
        )
