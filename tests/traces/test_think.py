"""`<think>` steps `</think>` answer: written, read back, and read whatever a model may have made of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.traces.templates import QWEN3, R1, Make, trace
from tunix_rt.config.format import ThinkChatFormat, ThinkFormat
from tunix_rt.errors import ConfigError, DataError
from tunix_rt.traces.format import Formatter, Part, formatter
from tunix_rt.traces.layout import Parsed, think

PIECES = ["\n", "\n\n", "\\", ";", "<", "</", "think", ">", "thi", "a", " ", "é", "<end>", "nk>"]
TAGS = ("<think>", "</think>")
CONTENT = (
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=8)
    .map("".join)
    .filter(lambda text: not any(tag in text for tag in TAGS))
)
ENDS = ["\n", ";", "\n\n", "\n- ", "aba", ">\n", "\n<"]


def plain(step_end: str = "\n", prompt_end: str = "\n") -> Formatter:
    return formatter(ThinkFormat(kind="think", prompt_end=prompt_end, step_end=step_end), None)


def chat(make: Make, template: str, **changed: object) -> Formatter:
    values = {"kind": "think_chat", "system": None, "variables": {}, "date": None, "step_end": "\n"}
    return formatter(ThinkChatFormat(**(values | changed)), make(template))  # type: ignore[arg-type]


def completion(parts: tuple[Part, ...]) -> str:
    return "".join(part.text for part in parts if part.kind in ("steps", "answer"))


def can_be_read_back(step_end: str) -> bool:
    try:
        plain(step_end)
    except ConfigError:
        return False
    return True


def test_it_is_written_as_reasoning_models_write() -> None:
    parts = plain().parts(trace("Q?", ("one", "two"), "5"))
    assert parts == (
        Part("prompt", "Q?\n"),
        Part("steps", "<think>\none"),
        Part("steps", "\ntwo"),
        Part("answer", "\n</think>\n\n5"),
    )
    assert completion(plain().parts(trace("Q?", ("one",), "5"), "drop")) == "<think>\n\n</think>\n\n5"


@given(st.sampled_from([end for end in ENDS if can_be_read_back(end)]), CONTENT, st.lists(CONTENT, max_size=4), CONTENT)
@pytest.mark.parametrize("opened", ["", "<think>", "<think>\n"])
def test_reading_is_the_exact_inverse_of_writing(
    opened: str, step_end: str, prompt: str, steps: list[str], answer: str
) -> None:
    layout = think(step_end, opened)
    try:
        written, last = layout.write(steps, answer)
    except DataError as error:
        assert any(step_end in step + step_end[:-1] for step in steps) and "format.step_end" in str(error)
        return
    assert layout.read("".join(written) + last) == Parsed(tuple(steps), answer, None)
    form = plain(step_end)
    assert form.parse_prompt(form.parts(trace(prompt, tuple(steps), answer))[0].text) == prompt


@given(st.sampled_from(["\n", ";"]), st.lists(st.sampled_from([*PIECES, *TAGS]), max_size=9).map("".join))
def test_whatever_a_model_writes_is_read_without_an_error(step_end: str, text: str) -> None:
    for opened in ("", "<think>\n"):
        parsed = think(step_end, opened).read(text)
        assert (parsed.answer is None) == (parsed.problem is not None)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("<think>a\nb</think>5", Parsed(("a", "b"), "5", None)),
        ("<think>\n</think>\n5", Parsed((), "5", None)),
        (" <think>\na\n</think>\n\n5", Parsed(("a",), "5", None)),
        ("5", Parsed((), None, "no <think>")),
        ("a</think>5", Parsed((), None, "no <think>")),
        ("<think>\na\nb", Parsed(("a", "b"), None, "no </think>")),
        ("So: <think>\na\n</think>\n\n5", Parsed(("a",), None, "text before <think>")),
        ("<think>\na<think>b\n</think>\n\n5", Parsed(("a<think>b",), None, "a second <think> inside the first")),
        ("<think>a</think>5<think>b</think>6", Parsed(("a",), None, "a second <think> behind the first block")),
        ("<think>\na\n</think>\n\n5</think>", Parsed(("a",), None, "a second </think> behind the first block")),
        ("<think>\na\n</think>\n\n", Parsed(("a",), None, "the answer is empty")),
    ],
)  # fmt: skip
def test_a_completion_out_of_form_has_no_answer_and_says_why(text: str, parsed: Parsed) -> None:
    assert plain().parse(text) == parsed


@pytest.mark.parametrize("step_end", ["", "<", "k>", "</think>", "x</th", "ink>x", "<think>", "a<"])
def test_a_step_end_that_could_become_a_tag_is_refused(step_end: str) -> None:
    with pytest.raises(ConfigError, match=r"format\.step_end"):
        plain(step_end)


def test_content_with_a_tag_is_refused() -> None:
    for bad in (trace("Q", ("a<think>",)), trace("Q", answer="</think>5")):
        with pytest.raises(DataError, match="would be read as the layout's own"):
            plain().parts(bad)
    assert plain().parts(trace("say <think>"))[0] == Part("prompt", "say <think>\n"), "a prompt may speak of it"


def test_tags_that_decoding_leaves_out_are_refused(make: Make) -> None:
    tokenizer = make(QWEN3, special=["<think>"])
    with pytest.raises(ConfigError, match="'<think>' is a special token, which decoding leaves out"):
        formatter(ThinkFormat(kind="think", prompt_end="\n", step_end="\n"), tokenizer)


@pytest.mark.framework
def test_a_template_that_writes_the_block_itself_agrees_with_ours(make: Make) -> None:
    """Qwen3: the last turn's thinking is taken apart and written anew, a previous turn's is left out."""
    form = chat(make, QWEN3)
    parts = form.parts(trace("Q?", ("one", "two"), "5"))
    assert parts[0].text == "[user]Q?<end>\n[assistant]"
    assert [part.text for part in parts[1:]] == ["<think>\none", "\ntwo", "\n</think>\n\n5", "<end>"]
    assert completion(form.parts(trace("Q?", ("one",), "5"), "drop")) == "<think>\n\n</think>\n\n5"
    assert form.parts(trace("Q?", ("one",), "\n5"))[-2].text == "\n</think>\n\n\n5", "other white space is kept"


@pytest.mark.framework
def test_a_generation_prompt_that_opens_the_block_leaves_the_rest_to_the_model(make: Make) -> None:
    """DeepSeek-R1: the prompt ends with `<think>`, and a finished turn is shown without its thinking."""
    form = chat(make, R1)
    parts = form.parts(trace("Q?", ("one", "two"), "5"))
    assert [part.text for part in parts] == ["|user|Q?|bot|<think>\n", "one", "\ntwo", "\n</think>\n\n5", "<end>"]
    assert form.parse(completion(parts)) == Parsed(("one", "two"), "5", None)
    assert form.parse("one") == Parsed(("one",), None, "no </think>")
    assert completion(form.parts(trace("Q?", ("one",), "5"), "drop")) == "\n</think>\n\n5"


@pytest.mark.framework
def test_a_prompt_with_thinking_turned_off_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"closed <think> block .* set what it asks in format\.variables"):
        chat(make, QWEN3, variables={"enable_thinking": False})
