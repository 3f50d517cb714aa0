"""Steps and answer ↔ the text of a completion: one step after the other, or inside `<think>…</think>`.

Each layout writes a piece of text for each step and one for the answer, and reads any text that a model may write; one
that could not be read back is refused. `literals`: (declaring field of `format`, text) for each fixed text it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tunix_rt.config.format import ChatFormat, PlainFormat, TemplateFormat, pieces
from tunix_rt.errors import ConfigError, DataError
from tunix_rt.traces.cuts import Cuts
from tunix_rt.traces.trace import MAX_STEPS, Span

OPEN, CLOSE = "<think>", "</think>"
OTHER_ENDS = ("\n\n", "\n\n\n", "\n---\n", "\n***\n")
"""Proposed where a step holds the declared end."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The contents of a completion. `answer` is None if it is not in the format; `problem` then says why."""

    steps: tuple[str, ...]
    answer: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Lines:
    """(`step_start` step `step_end`)* `answer_start` answer `answer_end`."""

    step_start: tuple[str, ...]
    """Split at the position of the step's number (counting from 1)."""
    step_end: str
    answer_start: str
    answer_end: str
    names: tuple[str, str]
    """The fields of `format` that declare step and answer, for messages."""
    opened: ClassVar[str] = ""

    @property
    def literals(self) -> tuple[tuple[str, str], ...]:
        """(field, text), as the module says."""
        step, answer = self.names
        own = [(step, text) for text in (*self.step_start, self.step_end)]
        return (*own, (answer, self.answer_start), (answer, self.answer_end))

    def write(self, steps: Sequence[str], answer: str) -> tuple[list[str], str]:
        """The text of each step, and of the answer. Raises DataError for content that could not be read back."""
        for step in steps:
            _refuse_inside(step, self.step_end, self.step_end, "step")
        if (answer + self.answer_end).find(self.step_end) >= 0:
            raise DataError(
                f"the answer {_shown(answer)} holds the text that ends a step ({self.step_end!r}, format.step_end): "
                "format=think and format=think_chat keep an answer as it is"
            )
        written = [self.step_begin(number) + step + self.step_end for number, step in enumerate(steps, 1)]
        return written, self.answer_start + answer + self.answer_end

    def read(self, completion: str) -> Parsed:
        """The inverse of `write`. Never raises."""
        *found, last = completion.split(self.step_end)
        steps: list[str] = []
        for number, piece in enumerate(found, 1):
            start = self.step_begin(number)
            if not piece.startswith(start):
                return Parsed(tuple(steps), None, f"no {start!r} where step {number} begins")
            steps.append(piece.removeprefix(start))
        answer, problem = last.removeprefix(self.answer_start), None
        if not last.startswith(self.answer_start):
            problem = f"no {self.answer_start!r} behind the last {self.step_end!r}"
        elif not answer.endswith(self.answer_end):
            problem = f"no {self.answer_end!r} behind the answer"
        elif not (answer := answer.removesuffix(self.answer_end)):
            problem = "the answer is empty"
        return Parsed(tuple(steps), None if problem else answer, problem)

    def cuts(self, completion: str) -> Cuts | None:
        """Where a completion that is in the layout and has steps can be cut; None for any other."""
        parsed = self.read(completion)
        if parsed.answer is None or not parsed.steps:
            return None
        steps: list[Span] = []
        asking, place = [self.answer_start], 0
        for number, step in enumerate(parsed.steps, 1):
            start = place + len(self.step_begin(number))
            steps.append((start, start + len(step)))
            place = start + len(step) + len(self.step_end)
            asking.append(completion[:place] + self.answer_start)
        return Cuts(completion, tuple(steps), tuple(asking))

    def step_begin(self, number: int) -> str:
        """The text before the step with this number."""
        return str(number).join(self.step_start)


def lines(config: PlainFormat | ChatFormat | TemplateFormat) -> Lines:
    """The layout of a declared format. Raises ConfigError if completions could not be read back."""
    if isinstance(config, TemplateFormat):
        before, behind = pieces("step", config.step)
        (answer_start,), answer_end = pieces("answer", config.answer)
        return prove(Lines(before, behind, answer_start, answer_end, ("step", "answer")))
    return prove(Lines(("",), config.step_end, config.answer_start, "", ("step_end", "answer_start")))


def prove(layout: Lines) -> Lines:
    """Returns `layout`. Raises ConfigError unless the step's end can be distinguished from any text around it.

    Content in which a `step_end` begins is refused when it is written. That leaves one that begins in the layout's own
    text: entirely inside it, or in its last characters, which content could continue (that content is then the
    counterexample). If there is none, the reader finds exactly the ends that were written.
    """
    end, (step, answer) = layout.step_end, layout.names
    if not end:
        raise ConfigError(f"format.{step}: empty behind the step: nothing would tell where a step ends")
    starts = {layout.answer_start: answer}
    starts |= {layout.step_begin(number): step for number in range(1, MAX_STEPS + 1)}
    for text, name in starts.items():
        if _begins_inside(end, text):
            raise ConfigError(
                f"format.{name}: a step_end {end!r} begins inside {text!r}: what follows could be read as the end "
                "of a step; choose others"
            )
    if end in layout.answer_end:
        raise ConfigError(f"format.{answer}: {layout.answer_end!r} holds the step's end {end!r}; choose others")
    return layout


def _refuse_inside(content: str, separator: str, tail: str, what: str) -> None:
    """Raises DataError if a separator begins inside `content`, which `tail` follows."""
    if 0 <= (content + tail).find(separator) < len(content):
        other = next((end for end in OTHER_ENDS if end not in content), OTHER_ENDS[-1])
        raise DataError(
            f"the {what} {_shown(content)} holds the text that ends a step ({separator!r}): format.step_end={other!r}, "
            "or another text that no step holds"
        )


def _shown(content: str) -> str:
    return repr(content if len(content) <= 60 else f"{content[:59]}…")


def _begins_inside(separator: str, text: str) -> bool:
    return separator in text or any(separator.startswith(text[place:]) for place in range(len(text)))


@dataclass(frozen=True, slots=True)
class Think:
    """`<think>` newline, steps with `step_end` between them, newline `</think>` empty line, answer.

    The layout of Qwen3 and DeepSeek-R1. `opened`: the part that the generation prompt has already written.
    """

    step_end: str
    opened: str = ""

    @property
    def literals(self) -> tuple[tuple[str, str], ...]:
        """(field, text), as the module says."""
        return (("step_end", self.step_end), ("kind", OPEN), ("kind", CLOSE))

    def write(self, steps: Sequence[str], answer: str) -> tuple[list[str], str]:
        """The text of each step, and of the answer. Raises DataError if content holds a tag."""
        for content in (*steps, answer):
            for tag in (OPEN, CLOSE):
                if tag in content:
                    raise DataError(f"{tag!r} in {content[:60]!r} would be read as the layout's own; change the data")
        starts = [f"{OPEN}\n".removeprefix(self.opened), *[self.step_end] * (len(steps) - 1)]
        tails = [*[self.step_end] * (len(steps) - 1), ""]
        for step, tail in zip(steps, tails, strict=False):
            _refuse_inside(step, self.step_end, tail, "step")
        written = [start + step for start, step in zip(starts, steps, strict=False)]
        return written, ("" if steps else starts[0]) + f"\n{CLOSE}\n\n{answer}"

    def read(self, completion: str) -> Parsed:
        """The inverse of `write`; white space around the tags may be missing. Never raises."""
        before, opened, rest = (self.opened + completion).partition(OPEN)
        if not opened:
            return Parsed((), None, f"no {OPEN}")
        block, closed, answer = rest.partition(CLOSE)
        block = block.removeprefix("\n")
        block = block.removesuffix("\n") if closed else block
        steps = tuple(block.split(self.step_end)) if block else ()
        answer = answer.removeprefix("\n").removeprefix("\n")
        problem = None
        if before.strip():
            problem = f"text before {OPEN}"
        elif OPEN in block:
            problem = f"a second {OPEN} inside the first"
        elif not closed:
            problem = f"no {CLOSE}"
        elif OPEN in answer or CLOSE in answer:
            problem = f"a second {OPEN if OPEN in answer else CLOSE} behind the first block"
        elif not answer:
            problem = "the answer is empty"
        return Parsed(steps, None if problem else answer, problem)

    def cuts(self, completion: str) -> Cuts | None:
        """Where a completion that is in the layout and has steps can be cut; None for any other."""
        parsed = self.read(completion)
        if parsed.answer is None or not parsed.steps:
            return None
        whole = self.opened + completion
        start = whole.index(OPEN) + len(OPEN)
        start += whole.startswith("\n", start) - len(self.opened)
        steps: list[Span] = []
        for step in parsed.steps:
            steps.append((start, start + len(step)))
            start += len(step) + len(self.step_end)
        way = completion[steps[-1][1] : len(completion) - len(parsed.answer)]
        kept = [steps[0][0], *(end for _, end in steps)]
        return Cuts(completion, tuple(steps), tuple(completion[:end] + way for end in kept))


Layout = Lines | Think


def think(step_end: str, opened: str = "") -> Think:
    """The layout of `<think>…</think>`. Raises ConfigError if completions could not be read back."""
    if not step_end:
        raise ConfigError("format.step_end: empty, expected at least one character")
    for tag in (OPEN, CLOSE):
        if step_end in tag or _begins_inside(tag, step_end) or _begins_inside(step_end, tag):
            raise ConfigError(
                f"format.step_end: with text around it, {step_end!r} could be read as {tag}; choose another"
            )
    return Think(step_end, opened)
