"""A trace's messages and completion as a conversation in the tokenizer's own chat template.

The template is an external program. What it makes of each conversation is compared with the messages: their text must
be there unchanged, and the end token right after what the assistant says.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

from tunix_rt.config.format import ChatFormat, ThinkChatFormat
from tunix_rt.errors import DataError, ModelError
from tunix_rt.files import JsonObject, to_json
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.apart import Apart
from tunix_rt.traces.calls import PROBE as ARGUMENTS
from tunix_rt.traces.calls import (
    hidden_calls,
    probe,
    refuse_changed,
    with_arguments_as_objects,
    with_arguments_as_text,
)
from tunix_rt.traces.causes import ANOTHER, cause, end_length, other_end, refuse_taken
from tunix_rt.traces.frame import marks_of, places
from tunix_rt.traces.thoughts import FIELD, SAID, Place, as_tags, divided, find_place, has_tags, shown, without
from tunix_rt.traces.trace import Message, Span
from tunix_rt.traces.turn import Turn, already_open, answers, last

PROBE = "⟦prompt⟧"
INSTRUCTIONS = ("system", "developer")
ALONE = "learn the last turn alone (no weight for others, dataset.loss_weights.previous_turns=0)"
LATER = (
    "in a later turn of the user, so this one would be learned without it and asked with it: "
    f"{ALONE}, or put its text into the first message of the user"
)


class ChatTurn:
    """A user's turn and the assistant's, after previous ones, with a system prompt (None: the template's own)."""

    def __init__(self, tokenizer: Tokenizer, config: ChatFormat | ThinkChatFormat) -> None:
        """Raises ModelError without a chat template, DataError if the template hides the prompt."""
        self._tokenizer, self._config = tokenizer, config
        asked = self._complete([Message("user", PROBE)])
        prompt, bare = self._render(asked, True), self._render(asked, False)
        shown = self._render([*asked, Message("assistant", SAID)], False)
        self._opening, self.lead, self.trail = "", "", ""
        self._last_end: str | None = None
        if shown.startswith(prompt) and SAID in shown:
            lead, rest = shown[len(prompt) : shown.index(SAID)], shown[shown.index(SAID) + len(SAID) :]
            blank = rest[: len(rest) - len(rest.lstrip())]
            self._last_end = next((token for token in tokenizer.end_tokens if rest.lstrip().startswith(token)), None)
            self.trail = "" if self._last_end is None else blank
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
        for place, message in enumerate(messages):
            if message.role == "assistant" and has_tags(message.content) and divided(message, self._place) is not None:
                raise DataError(
                    f"messages[{place}]: thoughts in the text of a previous turn, and the chat template has a place of "
                    f"its own for them: put them into the field {FIELD}, or dataset.previous_thoughts=template"
                )
        said = self._complete(messages)
        prefix = self._asked(said, tools)
        if tools and prefix == self._asked(said):
            raise DataError(f"the chat template does not show tools; {ANOTHER}")
        for place in range(len(said)):
            if hidden := hidden_calls(lambda given: self._asked(given, tools), prefix, said, place):
                what = "the chat template does not show the tool calls of previous turns"
                where = f"messages[{place - len(said) + len(messages)}]"
                raise DataError(f"{where}: {what} ({to_json(hidden)}); {ANOTHER}")
        simple = len(said) == 1 and prefix == self._head + said[0].content + self._tail
        start = len(self._head)
        spans = [(start, start + len(said[0].content))] if simple else self._places(prefix, said, tools)
        for place, span in enumerate(spans, len(messages) - len(said)):
            refuse_taken(self._tokenizer, prefix, span, f"messages[{place}]" if place < len(messages) - 1 else "prompt")
        return prefix

    def previous_turns(
        self, messages: Sequence[Message], tools: Sequence[JsonObject], learned: Container[int]
    ) -> list[tuple[int, Span]]:
        """(place in `messages`, [start, end) in the prefix) of each previous turn of the assistant that is learned.

        It begins with the thoughts that the template shows, since the model writes them, and includes its end token.
        Raises DataError if a turn does not end with an end token, or is asked otherwise than it is shown.
        """
        said = self._complete(messages)
        prefix, found = self._asked(said, tools), []
        added, spans = len(said) - len(messages), self._places(prefix, said, tools)
        ends = [start for start, _ in spans[1:]]
        for place, ((start, stop), following) in enumerate(zip(spans, ends, strict=False)):
            if said[place].role != "assistant" or place - added not in learned:
                continue
            where, calls = f"messages[{place - added}]: ", "tool_calls" in said[place].fields
            later = [m.role for m, span in zip(said, spans, strict=True) if m.role in INSTRUCTIONS and span[0] > start]
            if later:
                raise DataError(f"{where}the chat template shows the {later[0]} message {LATER}")
            asked = self._asked(said[:place], tools) if calls else ""
            if calls and not said[place].content:
                if not prefix.startswith(asked):
                    what = "tools or thoughts before this turn otherwise once the conversation goes on"
                    raise DataError(f"{where}the chat template shows {what}; {ALONE}")
                start = stop = len(asked)
            before = prefix[max((end for _, end in spans[:place]), default=0) : start]
            if calls and said[place].content:
                front = prefix[len(asked) : start] if prefix.startswith(asked) else before
                if any(call["function"]["name"] in front for call in said[place].fields["tool_calls"]):
                    raise DataError(f"{where}the chat template shows tool calls before the text of this turn; {ALONE}")
            start -= self._in_front(before, said[place], where)
            length = end_length(self._tokenizer, prefix[stop:following], self.trail, calls)
            if length is None:
                raise DataError(where + other_end(self._tokenizer, prefix[stop:following], self._last_end))
            found.append((place - added, (start, stop + length)))
        return found

    def _in_front(self, before: str, said: Message, where: str) -> int:
        """How many characters before the text of a previous turn the model writes: thoughts, the template's lead."""
        thoughts = said.fields.get(FIELD)
        if thoughts is not None and self._place is not None and thoughts.strip() in before:
            own = self._place.before + thoughts + self._place.after
            if not before.endswith(own):
                raise DataError(f"{where}the chat template changes the thoughts {last(thoughts)}; {ALONE}")
            return len(own)
        return len(self.lead) if before.endswith(self.lead) else 0

    def turn(self, messages: Sequence[Message], tools: Sequence[JsonObject], said: Message) -> Turn:
        """The prefix, and what surrounds the assistant's message after it. Raises DataError with the cause."""
        prefix, before = self.prefix(messages, tools), self._complete(messages)
        apart = divided(said, self._place) if has_tags(said.content) else None
        say = apart or said
        asked, whole = prefix, self._render([*before, say], False, tools)
        if not whole.startswith(prefix.removesuffix(already_open(prefix))) and before[0].role in INSTRUCTIONS:
            # Mistral's template shows the system message in the user's last message, and only while it is the last.
            before = [message for message in before if message.role not in INSTRUCTIONS]
            asked = self._asked(before, tools)
            whole = self._render([*before, say], False, tools)
        if said.fields.get("tool_calls"):
            hidden = hidden_calls(lambda given: self._render(given, False, tools), whole, [*before, say], len(before))
            found = self._calling(asked, whole, hidden, say)
        elif apart is not None:
            found = self._apart(asked, whole, apart, len(said.content) - len(apart.content))
        else:
            found = self._saying(asked, whole, said)
        if found.calls is None:
            begin, text = prefix + (found.thoughts or found.lead), said.content[found.replaced or len(found.opened) :]
            span = (len(begin), len(begin) + len(text))
            refuse_taken(self._tokenizer, begin + text + found.trail + found.end, span, "completion")
        return replace(found, prefix=prefix)

    def _apart(self, prefix: str, whole: str, said: Message, replaced: int) -> Turn:
        """A turn whose thoughts the template writes at a place of their own."""
        thoughts, place = said.fields.get(FIELD), self._place
        lead = self.lead if thoughts is None or place is None else place.before + thoughts + place.after
        if (end := self._ended(prefix + lead + said.content, whole)) is None:
            raise DataError(cause(self._tokenizer, prefix, whole, lead + said.content))
        return Turn(prefix, end[1], trail=end[0], thoughts=lead, replaced=replaced)

    def _saying(self, prefix: str, whole: str, said: Message) -> Turn:
        """A turn that is text, or text after thoughts in it."""
        opened, text = already_open(prefix), said.content
        if opened and not text.startswith(opened) and ("</think>" not in text or "<think>" in text):
            raise DataError(
                f"the chat template's prompt ends with {opened!r}, and the assistant's text begins with "
                f"{text[:40]!r}, which does not go on from there: set what the template asks in format.variables "
                "(often enable_thinking), or leave such rows out"
            )
        text = text.removeprefix(opened)
        own = opened if text != said.content else ""
        if (end := self._ended(prefix + self.lead + text, whole)) is not None:
            return Turn(prefix, end[1], own, self.lead, end[0])
        for visible in answers(said.content):  # a template may show a finished turn without its thoughts
            bare = prefix.removesuffix(opened)
            for token in self._tokenizer.end_tokens:
                for gap in ("", "\n", "\n\n"):
                    if whole.startswith(bare + gap + visible + token):
                        return Turn(prefix, token, own)
        if "</think>" in text:  # a template may write the tags of thoughts with other white space
            for token in self._tokenizer.end_tokens:
                if "".join(whole.split()).startswith("".join(f"{prefix}{text}{token}".split())):
                    return Turn(prefix, token, own)
        raise DataError(cause(self._tokenizer, prefix, whole, text))

    def _ended(self, text: str, whole: str) -> tuple[str, str] | None:
        """White space and end token, if they and nothing else follow `text` in the conversation `whole`."""
        rest = whole[len(text) :] if whole.startswith(text) else ""
        blank = rest[: len(rest) - len(rest.lstrip())]
        for token in self._tokenizer.end_tokens:
            if rest.startswith(blank + token) and not self._behind(rest[len(blank + token) :]):
                return blank, token
        return None

    def _behind(self, rest: str) -> str:
        """What stands behind the end of a turn besides white space and end tokens."""
        for token in self._tokenizer.end_tokens:
            rest = rest.replace(token, "")
        return rest.strip()

    def prompt_of(self, text: str) -> str:
        """The prompt in a prefix; for any other text, what remains without the template's parts."""
        return text.removeprefix(self._head).removesuffix(self._tail)

    def plain(self, completion: str) -> str:
        """What the assistant says in a completion, decoded without special tokens: thoughts between tags, no lead."""
        if self._place is not None and self._place.apart:
            completion = as_tags(completion, self._place, self._tokenizer.special_tokens)
        return completion.removeprefix(without(self.lead, self._tokenizer.special_tokens)).removesuffix(self.trail)

    def apart(self, thinks: bool, opened: bool) -> Apart:
        """What tells thoughts from what is said in a completion, decoded without special tokens."""
        return Apart.of(thinks, opened, self._place, self.lead, self.trail, self._tokenizer.special_tokens)

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

    @cached_property
    def _place(self) -> Place | None:
        """Where the template shows thoughts."""
        asked = self._complete([Message("user", PROBE)])
        prompt = self._chat([message.shown() for message in asked], True) + self._opening
        return find_place(lambda given: self._chat(given, False), asked, prompt)

    @cached_property
    def _takes_text(self) -> bool:
        """Whether the template shows the arguments of a tool call as they are, if they are text."""
        asked = [message.shown() for message in self._complete([Message("user", PROBE)])]
        try:
            return ARGUMENTS in self._chat([*asked, probe()], False)
        except ModelError:
            return False

    def _asked(self, messages: Sequence[Message], tools: Sequence[JsonObject] = ()) -> str:
        """The conversation up to where the assistant begins to write."""
        return self._render(messages, True, tools) + self._opening

    def _render(self, messages: Sequence[Message], add_prompt: bool, tools: Sequence[JsonObject] = ()) -> str:
        place = self._place if any(FIELD in message.fields for message in messages) else None
        given = [shown(message, place) for message in messages]
        if not any("tool_calls" in message.fields for message in messages):
            return self._chat(given, add_prompt, tools)
        fitting = given if self._takes_text else [with_arguments_as_objects(message) for message in given]
        try:
            return self._chat(fitting, add_prompt, tools)
        except ModelError:  # DeepSeek's template joins arguments to text
            return self._chat([with_arguments_as_text(message) for message in given], add_prompt, tools)

    def _chat(self, given: Sequence[JsonObject], add_prompt: bool, tools: Sequence[JsonObject] = ()) -> str:
        return self._tokenizer.chat(given, add_prompt, self._config.variables, self._config.date, tools)

    def _places(self, prefix: str, said: Sequence[Message], tools: Sequence[JsonObject]) -> list[Span]:
        """[start, end) of each message's text in the prefix. Raises DataError for one that is hidden or changed."""
        return places(prefix, self._frame(said, marks_of(said), tools), said)

    def _frame(self, said: Sequence[Message], marks: Sequence[str], tools: Sequence[JsonObject]) -> str:
        if tools or any(message.fields for message in said):
            marked = [replace(message, content=mark) for message, mark in zip(said, marks, strict=True)]
            return self._asked(marked, tools)
        return self._plain_frame(tuple((message.role, mark) for message, mark in zip(said, marks, strict=True)))

    @lru_cache(maxsize=512)  # noqa: B019  # as long-lived as the formatter
    def _plain_frame(self, marked: tuple[tuple[str, str], ...]) -> str:
        return self._asked([Message(role, mark) for role, mark in marked])

    def _calling(self, prefix: str, whole: str, hidden: Sequence[JsonObject], said: Message) -> Turn:
        """A turn with tool calls: the template writes them, so what it writes is what is learned."""
        rest = whole[len(prefix) :] if whole.startswith(prefix) else ""
        found = [(place, token) for token in self._tokenizer.end_tokens if (place := rest.find(token)) >= 0]
        place, token = min(found, default=(-1, ""))
        names = [call["function"]["name"] for call in said.fields["tool_calls"]]
        missing = [name for name in names if name not in rest[: max(place, 0)]]
        if place < 0 or self._behind(rest[place + len(token) :]) or missing or hidden:
            what = f"the assistant's tool calls ({to_json(hidden or missing or names)}) and an end token"
            raise DataError(f"the chat template does not show {what}; {ANOTHER}")
        refuse_changed(said, self.lead, rest[:place])
        return Turn(prefix, token, calls=rest[:place])
