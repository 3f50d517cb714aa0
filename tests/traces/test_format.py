"""A trace becomes text and back: the reader is the exact inverse of the writer, whatever the content holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunix_rt.config.dataset import ArithmeticSource
from tunix_rt.config.format import ChatFormat, PlainFormat
from tunix_rt.errors import ConfigError, DataError
from tunix_rt.models.tokenizer import Tokenizer, train_char
from tunix_rt.traces.arithmetic import generate
from tunix_rt.traces.format import Part, formatter
from tunix_rt.traces.layout import Parsed
from tunix_rt.traces.trace import Message, Step, Trace

SEPARATORS = [";", "\n", "\n\n", ";;", "aba", "; ", "\n---\n", "é", "aab"]
STARTS = ["", "Answer: ", "A", "####", "ω b"]
PIECES = ["\\", "\\\\", "\n", ";", "a", "b", " ", "-", "é", "ab", "Answer: ", "####", "<end>", "日", "\U0001f600", "\0"]
CONTENT = st.lists(st.sampled_from(PIECES) | st.sampled_from(SEPARATORS), min_size=1, max_size=8).map("".join)
ANYTHING = CONTENT | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def plain(step_end: str = ";", answer_start: str = "", prompt_end: str = "") -> PlainFormat:
    return PlainFormat(kind="plain", prompt_end=prompt_end, step_end=step_end, answer_start=answer_start)


def a_trace(prompt: str, steps: list[str], answer: str) -> Trace:
    return Trace("t", prompt, tuple(Step(i, "step", text) for i, text in enumerate(steps)), answer)


def text_of(parts: tuple[Part, ...], *kinds: str) -> str:
    return "".join(part.text for part in parts if part.kind in kinds)


def can_be_read_back(step_end: str, answer_start: str) -> bool:
    try:
        formatter(plain(step_end, answer_start), None)
    except ConfigError:
        return False
    return True


def cannot_hold(step_end: str, steps: list[str], answer: str) -> bool:
    """Whether the end of a step begins inside content."""
    return step_end in answer or any((step + step_end).find(step_end) < len(step) for step in steps)


FORMATS = [(end, start) for end in SEPARATORS for start in STARTS if can_be_read_back(end, start)]


@given(st.sampled_from(FORMATS), st.sampled_from(["", "=", "\n\n"]), ANYTHING, st.lists(ANYTHING, max_size=4), ANYTHING)
@example(("\n\n", ""), "", "p", ["x\n", "\n\n\n", "\\\n", "\\"], "\n\n\\")
@example(("aba", "A"), "", "p", ["ababa", "ab", "\\aba\\"], "ab")
@example((";;", "Answer: "), "", "p", ["Answer: 1", ";", ";;;"], ";")
def test_reading_is_the_exact_inverse_of_writing(
    separators: tuple[str, str], prompt_end: str, prompt: str, steps: list[str], answer: str
) -> None:
    form = formatter(plain(*separators, prompt_end), None)
    for choice, kept in (("keep", steps), ("drop", [])):
        if cannot_hold(separators[0], kept, answer):
            with pytest.raises(DataError, match="holds the text that ends a step"):
                form.parts(a_trace(prompt, steps, answer), choice)  # type: ignore[arg-type]
            continue
        parts = form.parts(a_trace(prompt, steps, answer), choice)  # type: ignore[arg-type]
        assert form.parse(text_of(parts, "steps", "answer")) == Parsed(tuple(kept), answer, None)
        assert form.parse_prompt(text_of(parts, "prompt")) == prompt
        assert text_of(parts, "prompt") == form.prompt([Message("user", prompt)])
        assert [part.kind for part in parts] == ["prompt", *["steps"] * len(kept), "answer"]


@given(st.sampled_from(FORMATS), ANYTHING | st.just(""))
def test_whatever_a_model_writes_is_read_without_an_error(separators: tuple[str, str], completion: str) -> None:
    parsed = formatter(plain(*separators), None).parse(completion)
    assert (parsed.answer is None) == (parsed.problem is not None)


def test_what_a_format_cannot_hold_names_one_that_can() -> None:
    """Prevents: characters that the data does not have, put in so that a reader could tell separators from text."""
    form = formatter(plain("\n", "Answer: "), None)
    with pytest.raises(DataError, match=r"the answer 'def f\(\):\\n    return 1' holds .* format=think"):
        form.parts(a_trace("p", [], "def f():\n    return 1"))
    with pytest.raises(DataError, match=r"the step 'a\\nb' holds .* format.step_end='\\n\\n'"):
        form.parts(a_trace("p", ["a\nb"], "5"))
    assert form.parts(a_trace("p", ["a \\\\"], "\\frac"))[1:] == (
        Part("steps", "a \\\\\n"),
        Part("answer", "Answer: \\frac"),
    )


def test_the_quickstart_text_has_one_part_a_step(arithmetic: Callable[..., ArithmeticSource], tmp_path: Path) -> None:
    train_char(["0123456789*+=;"], None, tmp_path)
    form = formatter(plain(), Tokenizer.load(tmp_path))
    trace = next(trace for trace in generate(arithmetic(), 0) if trace.id == "18*97")
    parts = form.parts(trace)
    assert "".join(part.text for part in parts) == (
        "18*97=8*7=56;1*7+5=12;8*9=72;1*9+7=16;2+2+0=04;1+6+0=07;0+1+0=01;1746<end>"
    )
    assert parts[:2] == (Part("prompt", "18*97="), Part("steps", "8*7=56;"))
    assert parts[-2:] == (Part("answer", "1746"), Part("end", "<end>"))
    assert "".join(part.text for part in form.parts(trace, "drop")) == "18*97=1746<end>"


@pytest.mark.parametrize(
    ("completion", "parsed"),
    [
        ("one\ntwo\nAnswer: 5", Parsed(("one", "two"), "5", None)),
        ("Answer: 5", Parsed((), "5", None)),
        ("one\ntwo", Parsed(("one",), None, "no 'Answer: ' behind the last '\\n'")),
        ("one\nAnswer: 5\n", Parsed(("one", "Answer: 5"), None, "no 'Answer: ' behind the last '\\n'")),
        ("one\nAnswer: ", Parsed(("one",), None, "the answer is empty")),
        ("", Parsed((), None, "no 'Answer: ' behind the last '\\n'")),
    ],
)
def test_a_completion_out_of_form_has_no_answer_and_says_why(completion: str, parsed: Parsed) -> None:
    assert formatter(plain("\n", "Answer: "), None).parse(completion) == parsed


@pytest.mark.parametrize(
    ("step_end", "answer_start", "message"),
    [
        ("\n", "\nAnswer: ", "format.answer_start: a step_end '\\n' begins inside '\\nAnswer: '"),
        ("; ", "=;", "format.answer_start: a step_end '; ' begins inside '=;'"),
        ("", "A", "format.step_end: empty"),
    ],
)
def test_a_format_that_could_not_be_read_back_is_refused(step_end: str, answer_start: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        formatter(plain(step_end, answer_start), None)
    assert message in str(caught.value)


def test_special_tokens_in_separators_or_content_are_refused(tmp_path: Path) -> None:
    train_char(["abc"], None, tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    with pytest.raises(ConfigError, match=r"format.step_end: '<end>' is a special token"):
        formatter(plain("<end>"), tokenizer)
    form = formatter(plain(), tokenizer)
    for trace in (a_trace("a<pad>", [], "b"), a_trace("a", ["<end>"], "b"), a_trace("a", [], "b<end>c")):
        with pytest.raises(DataError, match=r"'<(end|pad)>' in .* would be read as a special token"):
            form.parts(trace)


def test_a_chat_format_needs_a_tokenizer() -> None:
    with pytest.raises(ConfigError, match="'chat' needs a tokenizer"):
        formatter(ChatFormat(kind="chat", system=None, variables={}, date=None, step_end="\n", answer_start=""), None)


def test_thoughts_are_not_learned_as_an_answer_where_it_is_not_clear_which_that_is() -> None:
    written = formatter(plain("\n"), None)
    text = "<think>\nso\n</think>\n\n7"
    trace = Trace("t", "p", (), "7", completion=Message("assistant", text))
    assert text_of(written.parts(trace, "drop"), "answer") == "7"
    unclosed = Trace("t", "p", (), "7", completion=Message("assistant", "<think>\nso\n7"))
    assert text_of(written.parts(unclosed), "steps", "answer") == "<think>\nso\n7"
    with pytest.raises(DataError, match=r"steps=drop: it is not clear what the answer is: <think> is not closed"):
        written.parts(unclosed, "drop")
