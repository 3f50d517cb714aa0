"""Readers label spans of a text and never change it; whatever the text is, they answer."""

from __future__ import annotations

import time
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.config.choices import ReaderName
from tunix_rt.traces.readers import READERS, read

PIECES = "\n|\r\n|a| |  b|<think>|</think>|#### 5|Answer: x|\\boxed{|}|{|$|é|<answer>".split("|")


def labelled(text: str, reader: ReaderName) -> tuple[list[str], str | None]:
    found = read(text, reader)
    return [text[slice(*span)] for span in found.steps], None if found.answer is None else text[slice(*found.answer)]


def test_there_is_a_reader_for_every_name() -> None:
    assert tuple(READERS) == get_args(ReaderName)


@given(st.sampled_from(list(READERS)), st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text())
def test_spans_lie_in_the_text_in_order(reader: ReaderName, text: str) -> None:
    found = read(text, reader)
    assert (found.answer is None) == (found.problem is not None)
    spans = [*found.steps, *([] if found.answer is None else [found.answer])]
    assert all(0 <= start < end <= len(text) and text[start:end].strip() == text[start:end] for start, end in spans)
    ends = [(start, end) for start, end in found.steps]
    assert ends == sorted(ends) and 0 <= found.learned <= len(text)
    assert found.answer is None or found.answer[0] >= found.learned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 4 = 7\n7 * 2 = 14\n14", (["3 + 4 = 7", "7 * 2 = 14"], "14")),
        ("3 + 4 = 7\n#### 7", (["3 + 4 = 7"], "7")),
        ("one\nFinal Answer:  $7 \n", (["one"], "$7")),
        ("one\n**Answer:** 7", (["one"], "7")),
        ("one\n**Answer: 7**", (["one"], "7")),
        ("one\nThe answer is 7", (["one"], "7")),
        ("one\nAnswer: **5**", (["one"], "5")),
        ("one\n**Answer:** **5**", (["one"], "5")),
        ("one\nThe answer is **42**.", (["one"], "42")),
        ("one\nAnswer: *42*.", (["one"], "42")),
        ("one\n**Answer: 42**.", (["one"], "42")),
        ("one\nAnswer: ***42***", (["one"], "42")),
        ("one\nAnswer: **4** and **2**", (["one"], "**4** and **2**")),
        ("one\nAnswer: 2 * 3 *", (["one"], "2 * 3 *")),
        ("one\nThe answer is 42.", (["one"], "42.")),
        ("one\nAnswer: __init__", (["one"], "__init__")),
        ("x\n\\boxed{5}\nThe answer is not obvious to everyone", (["x"], "5")),
        ("x\n\\boxed{\\left\\{x\\right.}", (["x"], "\\left\\{x\\right.")),
        ("one\n<answer>5</answer>", (["one"], "5")),
        ("one\nAnswer: 7\nHope this helps!", (["one"], "7")),
        ("one\nThus \\boxed{\\frac{1}{2}}.", (["one", "Thus \\boxed{\\frac{1}{2}}."], "\\frac{1}{2}")),
        ("one\n$\\boxed{7}$", (["one"], "7")),
        ("one\nAnswer: \\boxed{7}", (["one"], "7")),
        ("one \\boxed{7\nlast", (["one \\boxed{7"], "last")),
        ("<think>one\ntwo</think>7", (["one", "two"], "7")),
        ("one\n</think>\n\n7", (["one"], "7")),
        ("<think>\none\n</think>\n\nUse it.\n\n1. Do.\n2. Done.", (["one"], "Use it.\n\n1. Do.\n2. Done.")),
        ("<think>\n#### 3\n</think>\n\nSo:\n#### 4", (["#### 3", "So:"], "4")),
        ("<|begin_of_thought|>\na\n<|end_of_thought|>\n<|begin_of_solution|>\n4\n<|end_of_solution|>", (["a"], "4")),
        ("<think>a</think>\n<answer>4</answer>", (["a"], "4")),
        ("<think>\nnever closed\nand on", (["<think>", "never closed", "and on"], None)),
        ("before <think>a</think>7", ([], None)),
        ("7", ([], "7")),
        ("Answer:\n7", (["Answer:"], "7")),
        (" \n", ([], None)),
    ],
)  # fmt: skip
def test_auto_finds_what_people_and_models_write(text: str, expected: tuple[list[str], str | None]) -> None:
    assert labelled(text, "auto") == expected


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        ("whole", ([], "a\n#### 5\n\\boxed{6}\nend")),
        ("lines", (["a", "#### 5", "\\boxed{6}"], "end")),
        ("marker", (["a"], "5")),
        ("boxed", (["a", "#### 5"], "6")),
        ("think", ([], None)),
    ],
)
def test_a_declared_reader_looks_for_nothing_else(reader: ReaderName, expected: tuple[list[str], str | None]) -> None:
    assert labelled(" a\n#### 5\n\\boxed{6}\nend\n", reader) == expected


def test_a_long_run_of_blanks_takes_no_time() -> None:
    begin = time.process_time()
    for text in ("Answer: x" + " " * 40_000 + "y z", "answer" + " " * 40_000 + "x", "*" * 40_000, "\\boxed{" * 10_000):
        read(text, "auto")
    assert time.process_time() - begin < 2
