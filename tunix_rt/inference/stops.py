"""Stop strings: a text ends before the first of them that is complete, wherever its pieces are divided."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Pieces of a text in, what of them is certain not to belong to a stop string out."""

    def __init__(self, stops: Sequence[str]) -> None:
        """`stops`: none of them empty."""
        self._stops = tuple(stops)
        self._held = ""
        self.hit: str | None = None
        """The stop string that was found."""

    def add(self, text: str) -> str:
        """What can be shown now; nothing behind a stop string, and not what may become one."""
        if self.hit is not None:
            return ""
        self._held += text
        found = [(place + len(stop), place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            _, place, self.hit = min(found)
            return self._release(place)
        return self._release(len(self._held) - self._undecided())

    def end(self) -> str:
        """What was held back when no text follows."""
        return "" if self.hit is not None else self._release(len(self._held))

    def _release(self, length: int) -> str:
        shown, self._held = self._held[:length], self._held[length:]
        return shown

    def _undecided(self) -> int:
        """How many of the last characters may begin a stop string."""
        longest = min(max((len(stop) - 1 for stop in self._stops), default=0), len(self._held))
        ends = (length for length in range(longest, 0, -1) if self._begins(self._held[-length:]))
        return next(ends, 0)

    def _begins(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stops)
