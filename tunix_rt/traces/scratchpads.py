"""Addition in the four formats of arXiv 2307.03381 (Lee et al. 2023, 'Teaching Arithmetic to Small Transformers').

Byte for byte, but for the line break that ends an example there: here the end token does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Text = tuple[str, list[tuple[str, str]], str]
"""Prompt; (type, text) of each step; answer."""


class Column(Protocol):
    """The sum of one column, ones first."""

    @property
    def x(self) -> int: ...
    @property
    def y(self) -> int: ...
    @property
    def carry(self) -> int | None: ...
    @property
    def result(self) -> int: ...


def plain(a: int, b: int, _: Sequence[Column]) -> Text:
    """`128+367=495`: the operands and the sum without leading zeros."""
    return f"{a}+{b}=", [], str(a + b)


def backwards(a: int, b: int, _: Sequence[Column]) -> Text:
    """`$128+367=594$`: the sum with its ones first; the dollar behind it belongs to the answer."""
    return f"${a}+{b}=", [], f"{str(a + b)[::-1]}$"


def simplified(a: int, b: int, columns: Sequence[Column]) -> Text:
    """A line per column, ones first: its digit of the sum (A) and the carry (C); a full stop ends the last."""
    lines = [f"A->{column.result % 10} , C->{carry}" for column, carry in zip(columns, _carried(columns), strict=True)]
    lines[-1] += "."
    return f"Input:\n{a}+{b}\nTarget:\n", [("sum", line) for line in lines], str(a + b)


def detailed(a: int, b: int, columns: Sequence[Column]) -> Text:
    """A line per column with the digits that are left, the sum so far, the carry and the column's equation."""
    lines = [("scratch", "<scratch>"), *(("digits", f"{_listed(str(n))} has {len(str(n))} digits.") for n in (a, b))]
    left, right, written = str(a), str(b), ""
    for column, carry in zip(columns, _carried(columns), strict=True):
        state = f"{_listed(left)} + {_listed(right)} , A={_listed(written)} , C={column.carry}"
        equation = f"{column.x}+{column.y}+{column.carry}={column.result}"
        lines.append(("sum", f"{state} , {equation} , A->{column.result % 10} , C->{carry}"))
        left, right, written = left[:-1], right[:-1], f"{column.result % 10}{written}"
    lines += [("end", f"[] + [] , A={_listed(written)} C={_carried(columns)[-1]} , END"), ("scratch", "</scratch>")]
    return f"Input:\n{a}+{b}\nTarget:\n", lines, " ".join(str(a + b))


def _carried(columns: Sequence[Column]) -> list[int]:
    """The carry that each column hands on: what the next one adds, right or wrong."""
    return [*(column.carry or 0 for column in columns[1:]), columns[-1].result // 10]


def _listed(digits: str) -> str:
    """`[1,2,8]`."""
    return f"[{','.join(digits)}]"


FORMATS = {
    "plain": plain,
    "reversed": backwards,
    "simplified_scratchpad": simplified,
    "detailed_scratchpad": detailed,
}
"""`dataset.source.wording` → its text."""
