"""What a person sees while a command works: progress, tables, notes. Plain lines where stderr is no terminal.

Progress and notes go to stderr, results to stdout. Knows nothing of experiments.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

PLAIN_EVERY_SECONDS = 10.0


class Progress(Protocol):
    """A running count."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count on; `note` (a loss, say) stands beside the rate."""


@dataclass(slots=True)
class _Plain:
    """A line every ten seconds, for logs and pipes."""

    title: str
    total: int
    done: int
    unit: str
    first: int = field(init=False)
    started: float = field(init=False)
    printed: float = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.done
        self.started = self.printed = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.printed >= PLAIN_EVERY_SECONDS:
            self.printed = now
            rate = (self.done - self.first) / max(now - self.started, 1e-9)
            left = (self.total - self.done) / rate if rate > 0 else 0.0
            say(f"{self.title}: {self.done}/{self.total} {self.unit}, {_rate(rate)}, {left:.0f} s left {note}".rstrip())


@dataclass(slots=True)
class _Bar:
    """rich's bar with rate and time left."""

    bar: Any
    task: Any

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.bar.update(self.task, advance=amount, **({"note": note} if note else {}))


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """Show the progress of `total` things named `unit`, `done` of which are there already."""
    if not sys.stderr.isatty():
        yield _Plain(title, total, done, unit)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        _rate_column(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
    )
    with RichProgress(*columns, console=_console(stderr=True)) as bar:
        yield _Bar(bar, bar.add_task(title, total=total, completed=done, unit=unit, note=""))


def _rate(per_second: float) -> str:
    if 0 < per_second < 1:
        return f"{1 / per_second:.1f} s each"
    return f"{per_second:.1f}/s" if per_second else ""


def _rate_column() -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(_rate(speed or 0.0))

    return RateColumn()


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def say(text: str) -> None:
    """A plain line to stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """A line to stderr that should not be missed."""
    say(f"warning: {text}")


def out(text: str = "") -> None:
    """A line of result to stdout."""
    print(text, flush=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A table to stdout; columns whose index is in `right` are aligned right. No columns: two of key and value."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, show_header=bool(columns))
    width = len(columns) or (len(rows[0]) if rows else 1)
    for index in range(width):
        name = columns[index] if columns else ""
        shown.add_column(name, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    console = _console()
    if not sys.stdout.isatty():
        console.width = 160
    console.print(shown)


def coloured(pieces: Sequence[tuple[str, str]]) -> None:
    """Text to stdout in pieces of (text, rich style); without a terminal the styles vanish."""
    from rich.text import Text

    _console().print(Text.assemble(*pieces), soft_wrap=True)
