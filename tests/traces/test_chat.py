"""Chat templates as they are found: text goes through unchanged, or the change is shown."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.config.dataset import ChatFormat
from tunix_rt.errors import DataError, ModelError
from tunix_rt.models.tokenizer import Tokenizer, train_char
from tunix_rt.traces.format import Formatter, Parsed, Part, formatter
from tunix_rt.traces.trace import Step, Trace

CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}[system]Be kind.[end]\n{% endif %}"
    "[{{ message['role'] }}]CONTENT<end>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
FAITHFUL = CHATML.replace("CONTENT", "{{ message['content'] }}")
STRIPPING = CHATML.replace("CONTENT", "{{ message['content'] | trim }}")
THINKING = FAITHFUL.replace("]{{", "]{% if message['role'] == 'assistant' %}<think></think>{% endif %}{{")
UNENDED = FAITHFUL.replace("<end>", "")
SPACED = FAITHFUL.replace("<end>", " <end>")
HIDING = "{% for message in messages %}[{{ message['role'] }}]{% endfor %}"
CONTENT = st.text(st.sampled_from("ab\\\n: é"), min_size=1, max_size=8)

Make = Callable[..., Formatter]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    def build(template: str | None, system: str | None = None) -> Formatter:
        folder = tmp_path_factory.mktemp("tokenizer")
        train_char(["abc"], None, folder)
        if template is not None:
            config = json.loads((folder / "tokenizer_config.json").read_text())
            (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
        section = ChatFormat(kind="chat", system=system, step_end="\n", answer_start="Answer: ")
        return formatter(section, Tokenizer.load(folder))

    return build


@pytest.fixture(scope="module")
def faithful(make: Make) -> Formatter:
    return make(FAITHFUL)


def trace(prompt: str = "Q?", steps: tuple[str, ...] = ("one",), answer: str = "5") -> Trace:
    return Trace("t", prompt, tuple(Step(i, "step", text) for i, text in enumerate(steps)), answer)


def test_a_trace_is_one_turn_and_the_end_token_ends_it(faithful: Formatter) -> None:
    assert faithful.parts(trace()) == (
        Part("prompt", "[system]Be kind.[end]\n[user]Q?<end>\n[assistant]"),
        Part("steps", "one\n"),
        Part("answer", "Answer: 5"),
        Part("end", "<end>"),
    )
    assert faithful.prompt("Q?") == "[system]Be kind.[end]\n[user]Q?<end>\n[assistant]"


def test_a_system_prompt_replaces_the_templates_own(make: Make) -> None:
    form = make(FAITHFUL, system="Count.")
    assert form.prompt("Q?") == "[system]Count.<end>\n[user]Q?<end>\n[assistant]"
    assert form.parse_prompt(form.prompt("Q?")) == "Q?"


@given(CONTENT, st.lists(CONTENT, max_size=3), CONTENT)
def test_reading_is_the_inverse_through_a_template(
    faithful: Formatter, prompt: str, steps: list[str], answer: str
) -> None:
    parts = faithful.parts(trace(prompt, tuple(steps), answer))
    completion = "".join(part.text for part in parts if part.kind in ("steps", "answer"))
    assert faithful.parse(completion) == Parsed(tuple(steps), answer, None)
    assert faithful.parse_prompt(parts[0].text) == prompt


def test_a_template_that_strips_content_is_found_out_where_it_does(make: Make) -> None:
    form = make(STRIPPING)
    assert form.parts(trace())[-1] == Part("end", "<end>")
    with pytest.raises(DataError, match=r"prompt: the chat template renders 'Q\? ' as "):
        form.parts(trace(prompt="Q? "))
    for changed in (trace(answer="5 "), trace(steps=(" one",))):
        with pytest.raises(DataError, match="does not continue its own prompt with the completion"):
            form.parts(changed)


@pytest.mark.parametrize(
    ("template", "expected", "got"),
    [
        (THINKING, "[assistant]one", "[assistant]<think></think>one"),
        (UNENDED, "Answer: 5<end>", "Answer: 5\\n"),
        (SPACED, "Answer: 5<end>", "Answer: 5 <end>"),
    ],
)
def test_a_template_that_does_not_fit_is_refused_with_both_sides(
    make: Make, template: str, expected: str, got: str
) -> None:
    with pytest.raises(DataError) as caught:
        make(template).parts(trace())
    both = str(caught.value).split("expected ")[1].split(", got ")
    assert expected in both[0] and got in both[1]


def test_a_tokenizer_without_a_usable_template_is_refused(make: Make) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        make(None)
    with pytest.raises(DataError, match="does not show the user's text"):
        make(HIDING)
