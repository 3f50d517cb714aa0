"""Blocks of Markdown in which foreign text stays text: tables, code in a line, code blocks.

In: text that a model or a data file may have made up. Out: lines of GitHub-flavoured Markdown that show it,
with characters that cannot be seen (or that would steer a terminal) written as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tunix_rt.terminal import visible

LONGEST_BLOCK = 2_000
LONGEST_CODE = 200


def code(text: str) -> str:
    """`text` as code in a line; of long text the beginning."""
    shown = visible(shortened(text, LONGEST_CODE))
    if not shown.strip():
        return repr(shown)
    fence = _fence(shown, 1)
    space = " " if "`" in (shown[0], shown[-1]) or " " in (shown[0], shown[-1]) else ""
    return f"{fence}{space}{shown}{space}{fence}"


def block(text: str, language: str = "text") -> list[str]:
    """`text` as lines of a code block, which no backticks in it can end; of long text the beginning."""
    shown = visible(shortened(text, LONGEST_BLOCK), keep="\n\t")
    fence = _fence(shown, 3)
    return [f"{fence}{language}", *shown.split("\n"), fence, ""]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; cells are Markdown."""
    return [_row(columns), _row(["---"] * len(columns)), *map(_row, rows), ""]


def shortened(text: str, longest: int) -> str:
    """At most so many characters, and how many are left out."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest:,} more characters)"


def _row(cells: Sequence[str]) -> str:
    # A bar ends a cell even inside code, unless a backslash stands before it.
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _fence(text: str, least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)
