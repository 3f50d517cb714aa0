"""Markdown in which untrusted text stays text: tables, inline code, code blocks.

In: text from a model or a data file. Out: lines of GitHub-flavoured Markdown that show it, with invisible characters
and terminal control characters written as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tunix_rt.terminal import visible

LONGEST_BLOCK = 2_000
LONGEST_CODE = 200


def code(text: str) -> str:
    """`text` as inline code; long text is truncated."""
    shown = visible(shortened(text, LONGEST_CODE))
    if not shown.strip():
        return repr(shown)
    fence = _fence(shown, 1)
    space = " " if "`" in (shown[0], shown[-1]) or " " in (shown[0], shown[-1]) else ""
    return f"{fence}{space}{shown}{space}{fence}"


def block(text: str, language: str = "text") -> list[str]:
    """`text` as lines of a code block that no backticks in it can end; long text is truncated."""
    shown = visible(shortened(text, LONGEST_BLOCK), keep="\n\t")
    fence = _fence(shown, 3)
    return [f"{fence}{language}", *shown.split("\n"), fence, ""]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; cells are Markdown."""
    return [_row(columns), _row(["---"] * len(columns)), *map(_row, rows), ""]


def without_pictures(text: str) -> str:
    """Markdown without its pictures, for a place that has none of the files."""
    return re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", text)


def shortened(text: str, longest: int) -> str:
    """`text` cut to `longest` characters, with the number of those left out."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest:,} more characters)"


def _row(cells: Sequence[str]) -> str:
    # A bar ends a cell even inside code, unless it is escaped with a backslash.
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _fence(text: str, least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)
