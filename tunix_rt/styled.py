"""Styled text on stdout: coloured pieces, labelled lines, Markdown, a screen that is renewed. A pipe gets plain text.

Everything is shown through `terminal.visible`, so that text from a data file or a model cannot control the terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tunix_rt.terminal import cells, console, out, visible

Piece = tuple[str, str]
"""Text and its style, as rich names it; empty: none."""


class Line(NamedTuple):
    """A labelled line, with a mark (one character) before its text."""

    label: str
    pieces: Sequence[Piece]
    mark: str = ""


def coloured(pieces: Sequence[Piece]) -> None:
    """Print text to stdout in pieces, tabs as `\\t`; a pipe gets the text alone, with tabs."""
    if not sys.stdout.isatty():
        out("".join(text for text, _ in pieces))
        return
    console().print(_assembled(pieces), soft_wrap=True)


def _assembled(pieces: Sequence[Piece]) -> Any:
    from rich.text import Text

    return Text.assemble(*((visible(text, "\n\t").replace("\t", "\\t"), style) for text, style in pieces))


def lines(rows: Sequence[Line]) -> None:
    """Print labelled lines to stdout: in a terminal, text has its colours and wraps beside its label."""
    width = max((cells(row.label) for row in rows), default=0)
    if not sys.stdout.isatty():
        for label, pieces, mark in rows:
            head = f"  {label:{width}}  {mark or ' '} "
            text = head + "".join(text for text, _ in pieces).replace("\n", "\n" + " " * len(head))
            out("\n".join(line.rstrip() for line in text.split("\n")))
        return
    from rich.table import Table

    grid = Table.grid(padding=(0, 1))
    for how in ({"width": 1}, {"no_wrap": True, "style": "dim"}, {"width": 1}, {"overflow": "fold"}):
        grid.add_column(**how)
    for label, pieces, mark in rows:
        grid.add_row("", label, mark, _assembled(pieces))
    console().print(grid)


def markdown(text: str) -> None:
    """Print Markdown to stdout: rendered for a terminal, unchanged for a pipe."""
    if not sys.stdout.isatty():
        out(text)
        return
    from rich.markdown import Markdown

    console().print(Markdown(visible(text, keep="\n\t"), hyperlinks=False))


Show = Callable[[Callable[[int], list[str]], Callable[[], list[str]]], None]


@contextmanager
def live() -> Iterator[Show]:
    """Show text on stdout that is renewed: the block calls `show(screen, change)`.

    A terminal shows the lines of `screen(width)` in place of those before; a pipe gets those of `change()`.
    """
    if not sys.stdout.isatty():
        yield _print_change
        return
    from rich.live import Live
    from rich.text import Text

    terminal = console()
    with Live(console=terminal, auto_refresh=False) as shown:

        def show(screen: Callable[[int], list[str]], change: Callable[[], list[str]]) -> None:
            text = "\n".join(map(visible, screen(terminal.width - 1)))
            shown.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

        yield show


def _print_change(screen: Callable[[int], list[str]], change: Callable[[], list[str]]) -> None:
    for line in change():
        out(line.rstrip())
