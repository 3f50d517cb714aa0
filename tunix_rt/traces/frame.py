"""Where the texts of messages stand in what a chat template makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from tunix_rt.errors import DataError
from tunix_rt.traces.trace import Message, Span
from tunix_rt.traces.turn import last


def marks_of(said: Sequence[Message]) -> list[str]:
    """A mark for each text that is not empty."""
    return [f"⟦{place}⟧" if message.content else "" for place, message in enumerate(said)]


def places(prefix: str, frame: str, said: Sequence[Message]) -> list[Span]:
    """[start, end) of each message's text in the prefix; an empty text stands after the one before it.

    `frame`: what the template makes of the marks in the place of the texts. What stands between them must be the same
    with the texts. Raises DataError for a message that is hidden or changed.
    """
    marks, found = marks_of(said), {}
    position = at = 0
    before = ""
    begins = {place: frame.find(mark) for place, mark in enumerate(marks) if mark}
    for place, begin in sorted(begins.items(), key=lambda item: item[1]):
        message = said[place]
        if begin < 0:
            raise DataError(f"messages[{place}]: the chat template does not show what {message.role!r} says")
        start = position + begin - at
        text = frame[at:begin] + message.content
        if not prefix.startswith(text, position):
            shown = prefix[start : start + len(message.content) + 20]
            who = "prompt" if place == len(said) - 1 else f"messages[{place}]"
            hint = _hint(before, message.content)
            raise DataError(f"{who}: the chat template renders {last(message.content)} as {last(shown)}{hint}")
        position += len(text)
        found[place] = (start, position)
        at, before = begin + len(marks[place]), message.content
    if prefix[position:] != frame[at:]:
        hint = _hint(before)
        raise DataError(f"the chat template changes the text after the last message: {last(prefix)}{hint}")
    ends = accumulate((found[place][1] if place in found else 0 for place in range(len(said))), max)
    return [found.get(place, (end, end)) for place, end in enumerate(ends)]


def _hint(*texts: str) -> str:
    """The way on if the template may have trimmed one of the texts."""
    trims = any(text.strip() != text for text in texts)
    return "; it trims white space: dataset.strip=true removes it in the data" if trims else ""
