"""Thoughts apart from what is said: the same of a text that grows as of the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.traces.apart import Apart

KINDS = {
    "tags": Apart(True, False),
    "opened": Apart(True, True),
    "marks": Apart(True, False, ("analysis", "assistantfinal")),
    "led": Apart(True, False, lead="\n", trail="\n"),
    "none": Apart(False, False),
}
PARTS = ["<think>", "</think>", "</thi", "\n", "\n\n", "a", " ", "<", "analysis", "assistant", "final", "<thought>"]


@pytest.mark.parametrize(
    ("kind", "text", "thoughts", "said"),
    [
        ("tags", "<think>\n1+1=2\nso\n</think>\n\n2", "1+1=2\nso", "2"),
        ("tags", "<think>not closed", "not closed", ""),
        ("tags", "no thoughts", "", "no thoughts"),
        ("tags", " <reasoning>why</reasoning>so", "why", "so"),
        ("opened", "1+1=2\n</think>\n\n2", "1+1=2", "2"),
        ("marks", "analysiswhyassistantfinalso", "why", "so"),
        ("marks", "so", "", "so"),
        ("led", "\nso\n", "", "so"),
        ("none", "<think>a</think>b", "", "<think>a</think>b"),
    ],
)
def test_a_whole_text(kind: str, text: str, thoughts: str, said: str) -> None:
    assert KINDS[kind].split(text, whole=True) == (thoughts, said)


@given(st.sampled_from(sorted(KINDS)), st.lists(st.sampled_from(PARTS), max_size=8))
def test_nothing_that_was_said_is_taken_back(kind: str, parts: list[str]) -> None:
    apart, text = KINDS[kind], "".join(parts)
    before = ("", "")
    for end in range(len(text) + 1):
        now = apart.split(text[:end], whole=False)
        assert all(new.startswith(old) for new, old in zip(now, before, strict=True)), (text[:end], before, now)
        before = now
    last = apart.split(text, whole=True)
    assert all(new.startswith(old) for new, old in zip(last, before, strict=True)), (text, before, last)
