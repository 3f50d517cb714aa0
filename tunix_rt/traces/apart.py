"""Thoughts apart from what is said, in a completion that may still grow.

What is returned of a beginning is a beginning of what is returned of the whole, so that both can be streamed.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunix_rt.traces.readers import TAGS
from tunix_rt.traces.thoughts import Place, without


@dataclass(frozen=True, slots=True)
class Apart:
    """For the answers to one prompt."""

    thinks: bool
    """Whether the format knows thoughts; if not, all is said."""
    opened: bool
    """Whether the prompt has opened them."""
    marks: tuple[str, str] | None = None
    """What stands around them where a chat template has marks of its own, decoded without special tokens."""
    lead: str = ""
    """What the template puts in front of what is said."""
    trail: str = ""
    """What the template puts behind what is said."""

    @classmethod
    def of(
        cls, thinks: bool, opened: bool, place: Place | None, lead: str, trail: str, special: frozenset[str]
    ) -> Apart:
        """By what a chat template writes, which has the tokens `special`, and shows thoughts at `place`."""
        around = ("", "") if place is None or not place.apart else (place.before, place.after)
        before, after = (without(text, special) for text in around)
        return cls(thinks, opened, (before, after) if before and after else None, without(lead, special), trail)

    def split(self, completion: str, whole: bool) -> tuple[str, str]:
        """(thoughts, what is said); `whole`: nothing follows."""
        if not whole and self.lead.startswith(completion):
            return "", ""
        text = completion.removeprefix(self.lead)
        if whole:
            text = text.removesuffix(self.trail)
        elif self.trail:
            text = text[: len(text) - _undecided(text, f"{self.trail}\0")]
        return self._split(text, whole) if self.thinks else ("", text)

    def _split(self, text: str, whole: bool) -> tuple[str, str]:
        if self.opened:
            return _within(text, TAGS[0][1], whole)
        for opening, closing in TAGS if self.marks is None else (self.marks,):
            if text.lstrip().startswith(opening):
                return _within(text.lstrip().removeprefix(opening), closing, whole)
            if not whole and opening.startswith(text.lstrip()):
                return "", ""
        return "", text


def _within(text: str, closing: str, whole: bool) -> tuple[str, str]:
    """Thoughts up to `closing`, then what is said; without a line break inside each tag, and two behind them."""
    thoughts, closed, said = text.partition(closing)
    thoughts = thoughts.removeprefix("\n")
    if closed:
        return thoughts.removesuffix("\n"), said.removeprefix("\n").removeprefix("\n")
    return (thoughts if whole else thoughts[: len(thoughts) - _undecided(thoughts, f"\n{closing}", closing)]), ""


def _undecided(text: str, *ends: str) -> int:
    """How many of the last characters may begin one of `ends`."""
    lengths = (length for end in ends for length in range(len(end) - 1, 0, -1) if text.endswith(end[:length]))
    return max(lengths, default=0)
