"""Readers: where the steps and the final answer stand in a text, as spans of it. The text itself is never changed.

The same reader reads the completions of a source and those of a model. One function per reader, in `READERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tunix_rt.config.choices import ReaderName
from tunix_rt.traces.trace import Span

TAGS = (
    ("<think>", "</think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
)
"""Around thoughts: DeepSeek-R1 and Qwen3, OpenThoughts, and what others write."""
WRAPPERS = (("<|begin_of_solution|>", "<|end_of_solution|>"), ("<answer>", "</answer>"), ("<solution>", "</solution>"))
"""Around the answer: OpenThoughts, DeepSeek-R1-Zero (arXiv 2501.12948, table 1)."""
MARK = re.compile(
    r"[ \t>*_#]{0,12}(?:####|(?:the[ \t])?(?:final[ \t])?answer[ \t]?(?:\*\*|__|\*)?[ \t]?(?P<word>:|is\b:?))"
    r"(?:\*\*|__|\*)?[ \t]{0,8}",
    re.IGNORECASE,
)
"""How a line begins that is marked as the answer: `#### 42`, `**Final answer:** 42`, `The answer is 42`."""
TELLING = re.compile(r"[0-9$\\]|[A-Z]\W*$")
"""What follows `the answer is`, if it is one: a number, a formula, or a letter."""
STOPS = ".,;!"
"""What ends a sentence behind an answer in emphasis: `The answer is **42**.`"""
BOXED = "\\boxed{"


@dataclass(frozen=True, slots=True)
class Reading:
    """Labelled spans of a text."""

    steps: tuple[Span, ...]
    answer: Span | None
    """None if the text has no answer by this reader; `problem` then says why."""
    learned: int
    """Where the part begins that gives the answer: what is learned if steps are not (`dataset.steps: drop`)."""
    problem: str | None = None


def read(text: str, reader: ReaderName) -> Reading:
    """The spans that the declared reader finds. Never raises."""
    return READERS[reader](text, 0)


def _whole(text: str, begin: int) -> Reading:
    """The whole text is the answer, without white space at its ends."""
    answer = _trimmed(text, begin, len(text))
    return _nothing(begin) if answer is None else Reading((), answer, begin)


def _lines(text: str, begin: int) -> Reading:
    """Every line that is not blank is a step, the last one is the answer."""
    lines = list(_line_spans(text, begin, len(text)))
    return Reading(tuple(lines[:-1]), lines[-1], _line_start(text, lines[-1][0], begin)) if lines else _nothing(begin)


def _marker(text: str, begin: int) -> Reading:
    """The last line that is marked as the answer; the lines before it are steps."""
    lines = list(_line_spans(text, begin, len(text)))
    for place in reversed(range(len(lines))):
        if (said := _marked(text, *lines[place])) is not None:
            answer = _box(text, *said) or said
            return Reading(tuple(lines[:place]), answer, _line_start(text, lines[place][0], begin))
    return Reading(tuple(lines), None, begin, "no line is marked as the answer (####, Answer:)")


def _marked(text: str, start: int, end: int) -> Span | None:
    """The answer in a line that is marked, without the emphasis of Markdown; None in another line."""
    mark = MARK.match(text, start, end)
    if mark is None or mark.end() == end:
        return None
    first = mark.end()
    if (mark["word"] or "").lower().startswith("is") and not TELLING.search(text[first:end]):
        return None
    return _trimmed(text, *_without_emphasis(text, first, end))


def _without_emphasis(text: str, first: int, end: int) -> Span:
    """A part of a text without Markdown's emphasis around it, and then without the full stop behind it."""
    for sign in ("***", "**", "*"):
        said = text[first:end].rstrip(STOPS)
        inside = said.removeprefix(sign).removesuffix(sign)
        if not said.endswith(sign) or not inside or sign in inside:
            continue
        if said.startswith(sign):
            first, end = first + len(sign), first + len(said) - len(sign)
        elif sign != "***":  # it opens before the mark
            end = first + len(said) - len(sign)
    return first, end


def _boxed(text: str, begin: int) -> Reading:
    """The content of the last `\\boxed{…}`; the lines before it are steps, its own too if it says more."""
    box = _box(text, begin, len(text))
    if box is None:
        return Reading(tuple(_line_spans(text, begin, len(text))), None, begin, "no \\boxed{…}")
    start = _line_start(text, box[0], begin)
    alone = text[start : box[0]].strip(" \t$") == BOXED and not text[box[1] + 1 :].partition("\n")[0].strip(" \t$.")
    steps = list(_line_spans(text, begin, start))
    if not alone:
        steps += list(_line_spans(text, start, _line_end(text, box[1])))
    return Reading(tuple(steps), box, start)


def _think(text: str, begin: int) -> Reading:
    """Thoughts between tags are the steps, line by line; what follows is the answer."""
    return _thought(text, begin, _whole) or Reading((), None, begin, f"no {TAGS[0][1]}")


def _auto(text: str, begin: int) -> Reading:
    """Thoughts where there are tags; the answer is the last one that is marked or boxed, else what follows the thoughts
    or, without thoughts, the last line.
    """
    thought = _thought(text, begin, lambda rest, start: _said(rest, start, _whole))
    if thought is not None:
        return thought
    found = _said(text, begin, _lines)
    return replace(found, answer=_unwrapped(text, found.answer))


def _said(text: str, begin: int, otherwise: Callable[[str, int], Reading]) -> Reading:
    marked = [reading for reading in (_marker(text, begin), _boxed(text, begin)) if reading.answer is not None]
    return max(marked, key=lambda reading: reading.learned) if marked else otherwise(text, begin)


def _thought(text: str, begin: int, rest: Callable[[str, int], Reading]) -> Reading | None:
    """The reading of a text with thoughts, None without; the opening tag may be missing (the prompt may have it)."""
    for opening, closing in TAGS:
        end = text.find(closing, begin)
        if end < 0:
            continue
        start = text.find(opening, begin, end)
        first = begin if start < 0 else start + len(opening)
        if start > begin and text[begin:start].strip():
            return Reading((), None, begin, f"text before {opening}")
        after = end + len(closing)
        if opening in text[first:end] or opening in text[after:] or closing in text[after:]:
            return Reading(tuple(_line_spans(text, first, end)), None, after, f"more than one {opening} or {closing}")
        said = rest(text, after)
        steps = (*_line_spans(text, first, end), *said.steps)
        return Reading(steps, _unwrapped(text, said.answer), after, said.problem)
    unclosed = [opening for opening, _ in TAGS if text[begin:].lstrip().startswith(opening)]
    if unclosed:
        return Reading(tuple(_line_spans(text, begin, len(text))), None, begin, f"{unclosed[0]} is not closed")
    return None


def _unwrapped(text: str, answer: Span | None) -> Span | None:
    """The answer without tags around it."""
    if answer is None:
        return None
    for opening, closing in WRAPPERS:
        start = text.find(opening, *answer)
        end = text.rfind(closing, *answer)
        if 0 <= start < end:
            return _trimmed(text, start + len(opening), end) or answer
    return answer


def _box(text: str, begin: int, end: int) -> Span | None:
    """The content of the last `\\boxed{…}` in a part of a text, braces balanced; None if there is none."""
    start = text.rfind(BOXED, begin, end)
    depth, first = 1, start + len(BOXED)
    for place in range(first, end) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[place], 0) if text[place - 1] != "\\" else 0
        if depth == 0:
            return _trimmed(text, first, place)
    return None


def _nothing(begin: int) -> Reading:
    return Reading((), None, begin, "the answer is empty")


def _trimmed(text: str, start: int, end: int) -> Span | None:
    """The span without white space at its ends; None if nothing is left."""
    part = text[start:end]
    length = len(part.strip())
    first = start + len(part) - len(part.lstrip())
    return (first, first + length) if length else None


def _line_spans(text: str, start: int, end: int) -> Iterator[Span]:
    """The lines of a part of a text that are not blank, without white space at their ends."""
    while start < end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        if (line := _trimmed(text, start, stop)) is not None:
            yield line
        start = stop + 1


def _line_start(text: str, place: int, begin: int) -> int:
    return max(text.rfind("\n", begin, place) + 1, begin)


def _line_end(text: str, place: int) -> int:
    end = text.find("\n", place)
    return len(text) if end < 0 else end


READERS: dict[ReaderName, Callable[[str, int], Reading]] = {
    "auto": _auto,
    "format": _auto,  # of a source; what a model writes is read by the format itself
    "think": _think,
    "marker": _marker,
    "boxed": _boxed,
    "lines": _lines,
    "whole": _whole,
}
