"""Chat templates as they are found: text goes through unchanged, or the change is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.traces.templates import QWEN3, R1, Make, trace
from tunix_rt.config.folders import choices, config_folders
from tunix_rt.config.format import ChatFormat, PlainFormat
from tunix_rt.errors import DataError, ModelError
from tunix_rt.traces.format import Formatter, Part, formatter
from tunix_rt.traces.layout import Parsed
from tunix_rt.traces.trace import Message

pytestmark = pytest.mark.framework  # chat templates are run by transformers

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
CONTENT = st.text(st.sampled_from("ab\\: é"), min_size=1, max_size=8)
"""Without the text that ends a step, which this format refuses."""

Q = (Message("user", "Q?"),)
TALK = (Message("user", "2+2?"), Message("assistant", "4"))
DATED = "{{ 'On ' + strftime_now('%d %B %Y') + '\\n' }}" + FAITHFUL


@pytest.fixture(scope="module")
def build(make: Make) -> Callable[..., Formatter]:
    def built(template: str | None, **changed: Any) -> Formatter:
        values = {"kind": "chat", "system": None, "variables": {}, "date": None, "step_end": "\n"}
        return formatter(ChatFormat(**(values | {"answer_start": "Answer: "} | changed)), make(template))

    return built


@pytest.fixture(scope="module")
def faithful(build: Callable[..., Formatter]) -> Formatter:
    return build(FAITHFUL)


def test_a_trace_is_one_turn_and_the_end_token_ends_it(faithful: Formatter) -> None:
    assert faithful.parts(trace()) == (
        Part("prompt", "[system]Be kind.[end]\n[user]Q?<end>\n[assistant]"),
        Part("steps", "one\n"),
        Part("answer", "Answer: 5"),
        Part("end", "<end>"),
    )
    assert faithful.prompt(Q) == "[system]Be kind.[end]\n[user]Q?<end>\n[assistant]"


def test_a_system_prompt_replaces_the_templates_own(build: Callable[..., Formatter]) -> None:
    form = build(FAITHFUL, system="Count.")
    assert form.prompt(Q) == "[system]Count.<end>\n[user]Q?<end>\n[assistant]"
    assert form.parse_prompt(form.prompt(Q)) == "Q?"


@given(CONTENT, st.lists(CONTENT, max_size=3), CONTENT)
def test_reading_is_the_inverse_through_a_template(
    faithful: Formatter, prompt: str, steps: list[str], answer: str
) -> None:
    parts = faithful.parts(trace(prompt, tuple(steps), answer))
    completion = "".join(part.text for part in parts if part.kind in ("steps", "answer"))
    assert faithful.parse(completion) == Parsed(tuple(steps), answer, None)
    assert faithful.parse_prompt(parts[0].text) == prompt


def test_a_template_that_strips_content_is_found_out_where_it_does(build: Callable[..., Formatter]) -> None:
    form = build(STRIPPING)
    assert form.parts(trace())[-1] == Part("end", "<end>")
    with pytest.raises(DataError, match=r"prompt: the chat template renders 'Q\? ' as "):
        form.parts(trace(prompt="Q? "))
    for changed in (trace(answer="5 "), trace(steps=(" one",))):
        with pytest.raises(
            DataError, match=r"trims white space at the ends of the assistant's text .*dataset\.strip=true"
        ):
            form.parts(changed)


def test_a_template_without_an_end_token_behind_the_text_is_refused(build: Callable[..., Formatter]) -> None:
    with pytest.raises(DataError, match="writes no end token after the assistant's text"):
        build(UNENDED).parts(trace())


def test_a_blank_before_the_end_token_is_learned_with_it(build: Callable[..., Formatter]) -> None:
    """Llama 2 writes one."""
    form = build(SPACED)
    assert form.parts(trace())[1:] == (Part("steps", "one\n"), Part("answer", "Answer: 5 "), Part("end", "<end>"))
    assert form.parse("one\nAnswer: 5 ") == Parsed(("one",), "5", None)


def test_what_a_template_writes_in_front_of_the_text_is_learned_with_it(build: Callable[..., Formatter]) -> None:
    """An empty block of thoughts, or the blank of Mistral and Llama 2: the model has to write it itself."""
    for template, lead in ((THINKING, "<think></think>"), (FAITHFUL.replace("]{{", "]{% if message['role'] == "
        "'assistant' %} {% endif %}{{"), " ")):  # fmt: skip
        form = build(template)
        parts = form.parts(trace())
        assert parts[0].text.endswith("[assistant]") and parts[1] == Part("steps", lead + "one\n")
        assert form.parse(lead + "one\nAnswer: 5") == Parsed(("one",), "5", None)


def test_a_template_without_a_generation_prompt_gets_one(build: Callable[..., Formatter]) -> None:
    form = build(FAITHFUL.replace("{% if add_generation_prompt %}[assistant]{% endif %}", ""))
    parts = form.parts(trace())
    assert form.prompt(Q).endswith("[user]Q?<end>\n[assistant]") and parts[0].text == form.prompt(Q)
    assert parts[1:] == (Part("steps", "one\n"), Part("answer", "Answer: 5"), Part("end", "<end>"))


def test_a_turn_that_ends_with_another_token_names_it(make: Make) -> None:
    tokenizer = make(FAITHFUL.replace("<end>", "<turn>"), special=["<turn>"])
    section = ChatFormat(kind="chat", system=None, variables={}, date=None, step_end="\n", answer_start="")
    with pytest.raises(DataError, match=r"ends the assistant's turn with '<turn>', .* model.stop_tokens=\['<turn>'\]"):
        formatter(section, tokenizer).parts(trace())


def test_a_tokenizer_without_a_usable_template_is_refused(build: Callable[..., Formatter]) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        build(None)
    with pytest.raises(DataError, match="does not show the user's text"):
        build(HIDING)


def test_a_conversation_keeps_its_turns_and_only_the_last_is_learned(faithful: Formatter) -> None:
    parts = faithful.parts(trace("Why?", history=TALK))
    asked = "[system]Be kind.[end]\n[user]2+2?<end>\n[assistant]4<end>\n[user]Why?<end>\n[assistant]"
    assert parts[0] == Part("prompt", asked)
    assert [part.kind for part in parts] == ["prompt", "steps", "answer", "end"]
    assert faithful.prompt((*TALK, Message("user", "Why?"))) == asked


def test_every_turn_of_the_assistant_can_be_learned_with_its_end(faithful: Formatter) -> None:
    longer = (*TALK, Message("user", "4"), Message("assistant", "4<"))
    parts = faithful.parts(trace("Why?", history=longer), previous_turns=True)
    assert [(part.kind, part.text) for part in parts[:5]] == [
        ("prompt", "[system]Be kind.[end]\n[user]2+2?<end>\n[assistant]"),
        ("previous_turns", "4<end>"),
        ("prompt", "\n[user]4<end>\n[assistant]"),
        ("previous_turns", "4<<end>"),
        ("prompt", "\n[user]Why?<end>\n[assistant]"),
    ]
    assert "".join(part.text for part in parts[:5]) == faithful.prompt((*longer, Message("user", "Why?")))


def test_an_earlier_turn_that_the_template_changes_is_refused(build: Callable[..., Formatter]) -> None:
    form = build(STRIPPING)
    history = (Message("user", "2+2?"), Message("assistant", " 4"))
    for previous_turns in (False, True):
        with pytest.raises(
            DataError, match=r"messages\[1\]: the chat template renders ' 4' as '4<.*dataset.strip=true"
        ):
            form.parts(trace("Why?", history=history), previous_turns=previous_turns)


def test_a_prompt_changed_behind_a_conversation_is_found_out(build: Callable[..., Formatter]) -> None:
    with pytest.raises(DataError, match=r"prompt: the chat template renders 'Q\? ' as "):
        build(STRIPPING).parts(trace("Q? ", history=TALK))


def test_formats_without_turns_refuse_a_conversation() -> None:
    form = formatter(PlainFormat(kind="plain", prompt_end="", step_end=";", answer_start=""), None)
    with pytest.raises(DataError, match=r"the trace has messages of user, assistant, user, .*format=chat"):
        form.parts(trace(history=TALK))


def test_a_special_token_in_an_earlier_turn_is_refused(faithful: Formatter) -> None:
    with pytest.raises(DataError, match="'<end>' in 'a<end>' would be read as a special token"):
        faithful.parts(trace(history=(Message("user", "a<end>"), Message("assistant", "b"))))


def test_variables_reach_the_template(build: Callable[..., Formatter]) -> None:
    """Qwen3 with thinking off: the empty block stands in the prompt, as in the rendered conversation."""
    form = build(QWEN3, variables={"enable_thinking": False})
    assert form.parts(trace())[0].text.endswith("[assistant]<think>\n\n</think>\n\n")
    assert build(QWEN3).parts(trace())[1].text == "<think>\n\n</think>\n\none\n", "the model writes it"
    with pytest.raises(DataError, match=r"ends with '<think>\\n', and the assistant's text begins with .*variables"):
        build(R1).parts(trace())


def test_a_template_that_writes_the_date_needs_a_declared_one(build: Callable[..., Formatter]) -> None:
    form = build(DATED, date="2024-07-06")
    assert form.prompt(Q).startswith("On 06 July 2024\n[system]Be kind.[end]\n[user]Q?")
    with pytest.raises(ModelError, match=r"it writes the date of the day, .* declare one: format.date=YYYY-MM-DD"):
        build(DATED)


def test_another_token_at_which_generation_stops_may_end_the_turn(make: Make) -> None:
    """Gemma: the end of a turn is not the end token of the tokenizer, but generation stops at both."""
    tokenizer = make(FAITHFUL.replace("<end>", "<turn>"), special=["<turn>"], stops=[1, 5])
    section = ChatFormat(kind="chat", system=None, variables={}, date=None, step_end="\n", answer_start="")
    assert tokenizer.end_tokens == ("<end>", "<turn>")
    assert formatter(section, tokenizer).parts(trace())[-1] == Part("end", "<turn>")


LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'].strip() + ' <end>' }}{% else %}"
    "{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}{% endif %}{% endfor %}"
)


def test_a_previous_turn_goes_up_to_the_end_token_behind_the_templates_own_blank(
    build: Callable[..., Formatter],
) -> None:
    """Llama 2."""
    parts = build(LLAMA2).parts(trace("Why?", history=TALK), previous_turns=True)
    assert parts[:3] == (
        Part("prompt", "[INST] 2+2? [/INST]"),
        Part("previous_turns", " 4 <end>"),
        Part("prompt", "[INST] Why? [/INST]"),
    )


@pytest.mark.parametrize(
    ("first", "prompt"), [("2+2?", "Q? "), ("2+2? ", "Q?")], ids=["the last message", "one in the middle"]
)
def test_a_trimmed_prompt_names_the_way_on_wherever_it_is_seen(
    build: Callable[..., Formatter], first: str, prompt: str
) -> None:
    """The template's own blank stands in for the text's: the difference shows only behind it."""
    history = (Message("user", first), TALK[1])
    with pytest.raises(DataError, match=r"dataset\.strip=true"):
        build(LLAMA2).parts(trace(prompt, history=history))


def test_text_behind_the_end_token_is_shown(build: Callable[..., Formatter]) -> None:
    with pytest.raises(DataError, match="writes 'FOO' behind '<end>', the end of the assistant's turn"):
        build(FAITHFUL.replace("<end>", "<end>{% if message['role'] == 'assistant' %}FOO{% endif %}")).parts(trace())


def test_a_template_without_tools_names_models_that_have_one(faithful: Formatter) -> None:
    with pytest.raises(DataError, match="does not show tools; use a model whose template does: ") as caught:
        faithful.prompt(Q, ({"name": "add"},))
    names = str(caught.value).rpartition("model=")[2].split(", ")
    assert set(names) <= set(choices("model", config_folders())) and len(names) > 2
