"""Terminal output while a command works: progress, tables, notes. Plain lines if stderr is no terminal.

Progress and notes go to stderr, results to stdout. Everything is shown through `visible`, so that text from a data file
or a model cannot control the terminal. Independent of experiments.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

PLAIN_EVERY_SECONDS = 10.0
MEANINGFUL_SECONDS = 2.0
"""How long a rate is measured before it is shown. The measurement begins when the first item is done, so that
one-off costs (compilation, loading) are excluded."""
BURST_SECONDS = 0.2
"""Items that are done within this time of each other count as done together."""
Sample = tuple[float, int]
"""Time, and how many items were done then."""
NARROWEST = 10
"""Characters to which a column may be cut if a table is wider than the terminal."""


def visible(text: str, keep: str = "") -> str:
    """`text` with every unprintable character, except those in `keep`, as its JSON escape (`\\u001b`, `\\u202e`)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


@dataclass(slots=True)
class Progress:
    """A running count of `total` items named `unit`; shown as a bar, or as a line every ten seconds."""

    title: str
    total: int
    unit: str
    done: int
    bar: Any = None
    """The progress bar of rich, if stderr is a terminal."""
    _samples: list[Sample] = field(default_factory=list, init=False)
    """The first and the latest sample."""
    _last: Sample | None = field(default=None, init=False)
    _burst: float = field(default=0.0, init=False)
    """Start time of the current burst; of a continuous one, at most the latest two seconds."""
    _printed: float = field(default_factory=lambda: time.monotonic(), init=False)

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Add `amount` to the count; `note` (a loss, say) is shown next to the rate."""
        now = time.monotonic()
        self._sample(now)
        self.done += amount
        self._last = now, self.done
        if self.bar is not None:
            self.bar.update(0, completed=self.done, pace=self.pace(), **({"note": note} if note else {}))
        elif now - self._printed >= PLAIN_EVERY_SECONDS:
            self._printed = now
            shown = [f"{self.title}: {self.done}/{self.total} {self.unit}", self.pace(), note]
            say(", ".join(part for part in shown if part))

    def _sample(self, now: float) -> None:
        """Record the end of a burst: answers of one batch come at once, and the time that they took precedes them."""
        if self._last is None:
            self._burst = now
        elif now - self._last[0] > BURST_SECONDS or now - self._burst > MEANINGFUL_SECONDS:
            self._samples, self._burst = [*self._samples[:1], self._last], now

    def pace(self) -> str:
        """Rate and time left, once they are meaningful; empty before."""
        if len(self._samples) < 2:
            return ""
        (begun, at_first), (now, done) = self._samples
        if now - begun < MEANINGFUL_SECONDS:
            return ""
        rate = (done - at_first) / (now - begun)
        each = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
        return each if self.done >= self.total else f"{each}, {(self.total - self.done) / rate:.0f} s left"


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """Show the progress of `total` items named `unit`, of which `done` are done already."""
    if not sys.stderr.isatty():
        yield Progress(title, total, unit, done)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    fields = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("unit", "pace", "note")]
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), *fields)
    with Bar(*columns, console=console(stderr=True)) as bar:
        bar.add_task(title, total=total, completed=done, unit=unit, pace="", note="")
        yield Progress(title, total, unit, done, bar)


def console(stderr: bool = False) -> Any:
    """Rich's console on stdout or stderr; it highlights nothing by itself."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def cut(text: str, longest: int) -> str:
    """`text` cut to `longest` characters, the last one `…` if something is left out."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def say(text: str) -> None:
    """Print a plain line to stderr."""
    print(visible(text, keep="\n\t"), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a line to stderr that should not be missed."""
    say(f"warning: {text}")


def out(text: str = "") -> None:
    """Print a line of results to stdout."""
    print(visible(text, keep="\n\t"), flush=True)


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    whole: Sequence[int] = (0,),
) -> None:
    """Print a table to stdout; columns whose index is in `right` are aligned right. No columns: two of key and value.

    If the terminal is too narrow, text in columns that are not in `whole` is cut, then such columns are left out, with
    a note; if those of `whole` alone do not fit, each row becomes lines of column and value. Columns without any value
    are left out. A pipe gets every column in full width.
    """
    rows = [[visible(cell) for cell in row] for row in rows]
    kept = [at for at in range(len(columns)) if any(row[at] for row in rows)]
    widths = {at: max(cells(row[at]) for row in [columns, *rows]) for at in kept}
    room = console().width if sys.stdout.isatty() else sys.maxsize
    dropped = _fit(widths, room, right, whole)
    if title:
        out(title)
    if not columns:
        _lines(rows)
    elif _width(widths) > room:
        for row in rows:
            _lines([(columns[at], row[at]) for at in kept])
    else:
        _line(columns, widths, right)
        out(f" {'─' * (_width(widths) - 2)}")
        for row in rows:
            _line(row, widths, right)
        out(f" not shown for want of room: {', '.join(columns[at] for at in dropped)}\n" if dropped else "")


def wrapped_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of sentences to stdout: in a terminal they wrap within their column, but for
    the first, which may be pasted; a pipe gets a line for each row, with tabs between its cells.
    """
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            out("\t".join(" ".join(cell.split()) for cell in row))
        return
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
    for name in columns:
        shown.add_column(name, overflow="fold", no_wrap=name == columns[0])
    for row in rows:
        shown.add_row(*(Text(visible(cell)) for cell in row))
    console().print(shown)


def _width(widths: dict[int, int]) -> int:
    return 2 + sum(widths.values()) + 2 * (len(widths) - 1)


def _fit(widths: dict[int, int], room: int, right: Sequence[int], whole: Sequence[int]) -> list[int]:
    """Reduce widths until they fit: text is cut, numbers never; returns the columns that were left out."""
    dropped: list[int] = []
    while _width(widths) > room and (loose := [at for at in widths if at not in whole]):
        text = [at for at in loose if at not in right and widths[at] > NARROWEST]
        if text:
            widths[max(text, key=lambda at: widths[at])] -= 1
        else:
            least = max(loose, key=lambda at: (at not in right, at))
            dropped.append(least)
            del widths[least]
    return sorted(dropped)


def _line(cells: Sequence[str], widths: dict[int, int], right: Sequence[int]) -> None:
    from rich.text import Text

    shown = [Text(cells[at]) for at in widths]
    for text, (at, width) in zip(shown, widths.items(), strict=True):
        text.truncate(width, overflow="ellipsis")
        text.align("right" if at in right else "left", width)
    out(f" {'  '.join(text.plain for text in shown)}".rstrip())


def cells(text: str) -> int:
    """Terminal columns that `text` takes; a Chinese character takes two."""
    from rich.cells import cell_len

    return cell_len(text)


def _lines(rows: Sequence[Sequence[str]]) -> None:
    """Print key and value, one line each, never wrapped: a value may be a command to paste."""
    width = max((cells(row[0]) for row in rows), default=0)
    for key, value in rows:
        out(f" {key}{' ' * (width - cells(key))}  {value}".rstrip())
    out()
