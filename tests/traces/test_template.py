"""A person's own template: what it writes is read back exactly, and what is refused would indeed be misread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.traces.templates import trace
from tunix_rt.config.format import TemplateFormat, pieces
from tunix_rt.errors import ConfigError, DataError
from tunix_rt.traces.format import Formatter, Part, formatter
from tunix_rt.traces.layout import Lines, Parsed, prove

LITERAL = st.text("ab;\n1 ", max_size=4)
CONTENT = st.text("ab;\n1 \\é", min_size=1, max_size=7)


def template(
    prompt: str = "Question: {prompt}\n", step: str = "{number}. {step}\n", answer: str = "Answer: {answer}"
) -> Formatter:
    return formatter(TemplateFormat(kind="template", prompt=prompt, step=step, answer=answer), None)


def test_each_part_is_written_with_its_own_text() -> None:
    form = template(answer="Answer: {answer}{{end}}")
    assert form.parts(trace("Q?", ("one", "two\\"), "5")) == (
        Part("prompt", "Question: Q?\n"),
        Part("steps", "1. one\n"),
        Part("steps", "2. two\\\n"),
        Part("answer", "Answer: 5{end}"),
    )
    assert form.parse_prompt("Question: Q?\n") == "Q?"


@given(st.tuples(LITERAL, LITERAL), LITERAL, LITERAL, LITERAL, st.booleans(), st.lists(CONTENT, max_size=3), CONTENT)
def test_what_is_accepted_is_read_back_and_what_is_refused_has_a_counterexample(
    before: tuple[str, str], behind: str, start: str, end: str, numbered: bool, steps: list[str], answer: str
) -> None:
    layout = Lines(before if numbered else before[:1], behind, start, end, ("step", "answer"))
    try:
        prove(layout)
    except ConfigError as error:
        if not behind:
            assert "nothing would tell where a step ends" in str(error)
            return
        assert behind in end or any(misread(layout, place) for place in range(1, 13)), str(error)
        return
    try:
        written, last = layout.write(steps, answer)
    except DataError:
        assert behind in answer or any(behind in step + behind[:-1] for step in steps)
        return
    assert layout.read("".join(written) + last) == Parsed(tuple(steps), answer, None)


def misread(layout: Lines, number: int) -> bool:
    """Whether some content of the step of this number, or of the answer, comes back as another."""
    contents = ["é", *(layout.step_end[place:] for place in range(len(layout.step_end)))]
    for content in contents:
        for steps, answer in ((["é"] * (number - 1) + [content], "é"), (["é"], content)):
            try:
                written, last = layout.write(steps, answer)
            except DataError:
                continue
            if layout.read("".join(written) + last) != Parsed(tuple(steps), answer, None):
                return True
    return False


@given(st.text("ab;\n1. Answer:", max_size=20))
def test_whatever_a_model_writes_is_read_without_an_error(completion: str) -> None:
    parsed = template(answer="Answer: {answer}.").parse(completion)
    assert (parsed.answer is None) == (parsed.problem is not None)


@pytest.mark.parametrize(
    ("completion", "parsed"),
    [
        ("1. a\n2. b\nAnswer: 5.", Parsed(("a", "b"), "5", None)),
        ("1. a\n3. b\nAnswer: 5.", Parsed(("a",), None, "no '2. ' where step 2 begins")),
        ("1. a\n5.", Parsed(("a",), None, "no 'Answer: ' behind the last '\\n'")),
        ("1. a\nAnswer: 5", Parsed(("a",), None, "no '.' behind the answer")),
        ("Answer: .", Parsed((), None, "the answer is empty")),
    ],
)
def test_a_completion_out_of_form_says_why(completion: str, parsed: Parsed) -> None:
    assert template(answer="Answer: {answer}.").parse(completion) == parsed


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("prompt", "Question", r"prompt: 'Question': expected {prompt} once"),
        ("prompt", "{prompt}{prompt}", "expected {prompt} once"),
        ("prompt", "{number} {prompt}", "unknown field in '{number} {prompt}', there is {prompt}"),
        ("step", "{stp}\n", r"unknown field in '{stp}\n', there is {number} and {step}"),
        ("step", "{step} {number}\n", "expected {step} once, {number} before it"),
        ("step", "{step!r}\n", "unknown field"),
        ("step", "{}\n", "unknown field"),
        ("answer", "{answer", "(a brace of the text itself is written twice)"),
        ("answer", "{answer} }", "(a brace of the text itself is written twice)"),
    ],
)
def test_a_text_with_wrong_fields_says_which_there_are(part: str, text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        pieces(part, text)
    assert message in str(caught.value).replace("\\\\", "\\")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"step": "- {step}"}, "format.step: empty behind the step"),
        ({"step": "\n{step}\n"}, "format.step: a step_end '\\n' begins inside '\\n'"),
        ({"step": "{number}{step}1"}, "format.step: a step_end '1' begins inside '1'"),
        ({"answer": "\nA: {answer}"}, "format.answer: a step_end '\\n' begins inside '\\nA: '"),
        ({"answer": "{answer}\n"}, "format.answer: '\\n' holds the step's end '\\n'"),
    ],
)
def test_a_template_that_could_not_be_read_back_is_refused(changed: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        template(**changed)
    assert message in str(caught.value)


def test_a_conversation_is_refused() -> None:
    from tunix_rt.traces.trace import Message

    with pytest.raises(DataError, match="format=chat shows all of them"):
        template().parts(trace(history=(Message("user", "a"), Message("assistant", "b"))))
