"""Where a completion can be cut: its steps, and for each number of them the text that then asks for the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tunix_rt.traces.readers import TAGS, Reading
from tunix_rt.traces.trace import Span


@dataclass(frozen=True, slots=True)
class Cuts:
    """A completion that has steps and an answer."""

    text: str
    steps: tuple[Span, ...]
    """[start, end) of each in the text, in characters; at least one."""
    asking: tuple[str, ...]
    """For k from 0 to the number of steps: the text to the end of step k, and the way from there into the answer, as
    the completion itself goes it behind its last step. The last one is the beginning of the completion itself."""

    def behind(self, before: str) -> Cuts:
        """The same with a text in front."""
        steps = tuple((start + len(before), end + len(before)) for start, end in self.steps)
        return Cuts(before + self.text, steps, tuple(before + text for text in self.asking))

    def replaced(self, place: int, step: str) -> str:
        """The text up to where step `place` (from 0) is followed by the next one or by the answer, with another text
        as this step."""
        start, end = self.steps[place]
        last = place + 1 == len(self.steps)
        following = self.asking[-1] if last else self.text[: self.steps[place + 1][0]]
        return self.text[:start] + step + following[end:]

    def filled(self, kept: int, filler: str) -> str:
        """`asking[kept]` with `filler`, repeated to the length of each step, in place of the steps."""
        text = self.asking[kept]
        for start, end in self.steps[:kept]:
            text = text[:start] + (filler * (end - start))[: end - start] + text[end:]
        return text


def cuts_of_reading(text: str, reading: Reading) -> Cuts | None:
    """The cuts of a text that a reader labelled; None if it has no steps, no answer, or no way from one to the other.

    Thoughts that are cut are closed as the text itself closes them.
    """
    if reading.answer is None or not reading.steps:
        return None
    steps, answer = list(reading.steps), reading.answer[0]
    if answer < steps[-1][1]:  # `So it is \\boxed{5}.` is a step that holds the answer
        opening = text.rfind("\\", steps[-1][0], answer)
        if opening < 0 or steps[-1][0] == opening:
            return None
        steps[-1] = (steps[-1][0], opening)
    way = text[steps[-1][1] : answer]
    way = way if way[:1].isspace() else f"\n{way}"
    if not way.strip():
        return None
    gaps = [text[end:start] for (_, end), (start, _) in pairwise(steps)]
    asking = [_asking(text[:end], gaps[place:], way) for place, (_, end) in enumerate(steps[:-1])]
    first = _asking(text[: steps[0][0]], gaps, way)
    return Cuts(text, tuple(steps), (first, *asking, text[:answer]))


def _asking(kept: str, gaps: Sequence[str], way: str) -> str:
    closing = next((gap for gap in gaps if any(tag in gap for _, tag in TAGS)), "")
    text = kept + closing + way.lstrip("\n") if closing else kept + way
    return text if kept.strip() else text.lstrip()
