"""Thoughts land where a chat template has a place for them; tool calls and system messages where it puts them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.traces.templates import QWEN3, R1, Make
from tests.traces.test_verbatim import CHATML, chat
from tunix_rt.errors import DataError
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.adapters import adapt
from tunix_rt.traces.format import Formatter, formatter
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.trace import Trace

pytestmark = pytest.mark.framework

HARMONY = (
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}"
    "{%- if m.tool_calls -%}"
    "{%- if m.content and m.thinking -%}{{ raise_exception('both content and thinking') }}{%- endif -%}"
    "{%- set hm = m.content or m.thinking -%}"
    "{%- if hm -%}{{ '<|start|>assistant<|channel|>analysis<|message|>' + hm + '<|end|>' }}{%- endif -%}"
    "{{ '<|start|>assistant to=functions.' + m.tool_calls[0].function.name + '<|channel|>commentary json<|message|>' }}"
    "{{ m.tool_calls[0].function.arguments | tojson }}{{ '<|call|>' }}"
    "{%- elif loop.last and not add_generation_prompt -%}"
    "{%- if 'thinking' in m -%}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}"
    "{%- endif -%}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<end>' }}"
    "{%- else -%}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{%- endif -%}"
    "{%- else -%}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|start|>assistant' }}{%- endif -%}"
)
"""As gpt-oss's: `thinking` becomes a channel; previous turns lose it, unless they call a tool."""
ALWAYS = CHATML.replace(
    "m.content + '<end>'", "'<think>' + (m.reasoning_content or '') + '</think>' + m.content + '<end>'"
)
"""A block of thoughts in every turn, and none that would be found in the text."""
PARTS = CHATML.replace(
    "{{ m.content + '<end>' }}",
    "{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for p in m.content -%}"
    "{{ '[THINK]' + p.thinking + '[/THINK]' if p.type == 'thinking' else p.text }}"
    "{%- endfor -%}{%- endif -%}{{ '<end>' }}",
)
"""As those of Mistral's models that think."""
SPECIAL = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>"]
USER = {"role": "user", "content": "Q"}
THOUGHT = "hm\n  deep "
SAID = " Use it.\n\n1. Do."
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"b":  1.10, "a": "\\u00e9"}'}}


@pytest.fixture(scope="module")
def harmony(make: Make) -> Formatter:
    return formatter(chat("chat"), harmony_tokenizer(make))


def harmony_tokenizer(make: Make) -> Tokenizer:
    names = make(HARMONY, special=SPECIAL)
    return make(HARMONY, special=SPECIAL, stops=[1, names.encode("<|call|>").ids[0]])


def read(*said: dict[str, Any], **rules: Any) -> Trace:
    return adapt({"messages": list(said)}, "chat", "f:1", Rules(**rules))


def pieces(form: Formatter, trace: Trace, previous_turns: bool = False) -> list[tuple[str, str]]:
    return [(part.kind, part.text) for part in form.parts(trace, previous_turns=previous_turns)]


@pytest.mark.parametrize("field", ["thinking", "reasoning_content", "reasoning", None])
def test_thoughts_go_into_the_channel_that_the_template_has_for_them(harmony: Formatter, field: str | None) -> None:
    """However the source writes them; what is said is said in the final channel."""
    inline = {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n\n{SAID}"}
    said = inline if field is None else {"role": "assistant", "content": SAID, field: THOUGHT}
    whole = pieces(harmony, read(USER, said))
    assert "".join(text for _, text in whole[:-1]) == (
        "<|start|>user<|message|>Q<|end|><|start|>assistant<|channel|>analysis<|message|>"
        f"{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{SAID}"
    )
    assert whole[0] == ("prompt", "<|start|>user<|message|>Q<|end|><|start|>assistant")
    assert whole[1][0] == "steps" and THOUGHT in whole[1][1] and whole[-1] == ("end", "<end>")


def test_what_a_model_writes_into_channels_is_read_as_thoughts_and_answer(harmony: Formatter) -> None:
    """Decoded without special tokens."""
    parsed = harmony.parse("analysisone\ntwoassistantfinalIt is\n#### 5")
    assert (parsed.steps, parsed.answer) == (("one", "two", "It is"), "5")
    assert harmony.parse("finalfive").answer == "five"


def test_thoughts_between_tool_calls_are_shown_and_learned(harmony: Formatter) -> None:
    calling = {"role": "assistant", "content": "", "tool_calls": [CALL], "thinking": THOUGHT}
    written = (
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant to=functions.add<|channel|>"
        'commentary json<|message|>{"b": 1.1, "a": "é"}'
    )
    assert pieces(harmony, read(USER, calling))[1:] == [("answer", written), ("end", "<|call|>")]
    said = {"role": "assistant", "content": "5"}
    whole = pieces(harmony, read(USER, calling, {"role": "tool", "content": "2"}, said), previous_turns=True)
    assert whole[1] == ("previous_turns", written + "<|call|>")
    both = calling | {"content": "I add."}
    with pytest.raises(Exception, match="both content and thinking"):
        harmony.parts(read(USER, both))


def test_a_call_that_the_template_leaves_out_is_an_error(harmony: Formatter) -> None:
    """Harmony's template writes the first call of a message alone, and nothing of the text beside it."""
    other = CALL | {"function": CALL["function"] | {"arguments": '{"a": 7}'}}
    calling = {"role": "assistant", "content": "", "tool_calls": [CALL, other]}
    with pytest.raises(DataError, match=r"assistant's tool calls \(\[\{\"name\": \"add\", \"arguments\": .*7"):
        harmony.parts(read(USER, calling))
    with pytest.raises(DataError, match=r"messages\[1\]: the chat template does not show the tool calls of previous"):
        harmony.parts(read(USER, calling, {"role": "tool", "content": "2"}, {"role": "assistant", "content": "5"}))


def test_text_between_thoughts_and_a_call_must_be_shown(make: Make) -> None:
    template = HARMONY.replace("raise_exception('both content and thinking')", "''")
    names = make(template, special=SPECIAL)
    hiding = make(
        template.replace("m.content or m.thinking", "m.thinking or m.content"),
        special=SPECIAL,
        stops=[1, names.encode("<|call|>").ids[0]],
    )
    said = {"role": "assistant", "content": "I add.", "thinking": THOUGHT, "tool_calls": [CALL]}
    with pytest.raises(DataError, match=r"does not show the text .I add.. between thoughts"):
        formatter(chat("chat"), hiding).parts(read(USER, said))


def test_thoughts_elsewhere_than_in_front_are_an_error_where_the_template_has_a_place(harmony: Formatter) -> None:
    for text in ("So: <think>\nhm\n</think>\n\n5", "<think>a</think>b<think>c</think>d"):
        with pytest.raises(DataError, match=r"a place of its own for thoughts.*reasoning_content"):
            harmony.parts(read(USER, {"role": "assistant", "content": text}))
    plain = pieces(harmony, read(USER, {"role": "assistant", "content": "In XML: <reasoning>x</reasoning>"}))
    assert ("answer", "<|channel|>final<|message|>In XML: <reasoning>x</reasoning>") in plain


def test_previous_turns_of_channels_end_otherwise_and_are_refused_with_the_way_on(harmony: Formatter) -> None:
    said = {"role": "assistant", "content": "5", "thinking": "hm"}
    talk = read(USER, said, USER, said)
    assert pieces(harmony, talk)[0][1].count("<|channel|>final<|message|>5<|end|>") == 1
    with pytest.raises(DataError, match=r"ends a previous turn with '<\|end\|>' and only the last with '<end>'"):
        harmony.parts(talk, previous_turns=True)


def test_thoughts_in_the_text_of_a_previous_turn_are_refused_where_there_is_a_place(harmony: Formatter) -> None:
    said = {"role": "assistant", "content": "5", "thinking": "hm"}
    with pytest.raises(DataError, match=r"messages\[1\]: thoughts in the text of a previous turn.*=template"):
        harmony.parts(read(USER, said, USER, said, previous_thoughts="inline"))


@pytest.mark.parametrize("template", [ALWAYS, PARTS])
def test_other_places_of_thoughts_are_found_too(make: Make, template: str) -> None:
    form = formatter(chat("chat"), make(template))
    own = ("<think>", "</think>") if template is ALWAYS else ("[THINK]", "[/THINK]")
    thinking = read(USER, {"role": "assistant", "content": SAID, "reasoning_content": THOUGHT})
    learned = "".join(text for kind, text in pieces(form, thinking) if kind in ("steps", "answer"))
    assert learned == f"{own[0]}{THOUGHT}{own[1]}{SAID}"
    without = read(USER, {"role": "assistant", "content": f"<think>\n\n</think>\n\n{SAID}"})
    learned = "".join(text for kind, text in pieces(form, without) if kind in ("steps", "answer"))
    assert learned == (f"<think></think>{SAID}" if template is ALWAYS else SAID)


@pytest.mark.parametrize("template", [QWEN3, R1, CHATML])
def test_where_there_is_no_other_place_thoughts_stay_in_the_text(make: Make, template: str) -> None:
    text = f"<think>\n{THOUGHT}\n</think>\n\nUse it."
    form = formatter(chat("chat"), make(template))
    learned = "".join(t for k, t in pieces(form, read(USER, {"role": "assistant", "content": text})) if k != "prompt")
    assert learned == (text.removeprefix("<think>\n") if template is R1 else text) + "<end>"


def test_thoughts_of_previous_turns_that_are_shown_are_learned_with_their_turn(make: Make) -> None:
    """A model that is asked for this turn writes them; where the turn is not learned, they are context like it."""
    shows = CHATML.replace(
        "{{ m.content + '<end>' }}",
        "{{ ('<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' if m.reasoning_content else '') }}"
        "{{ m.content + '<end>' }}",
    )
    form, said = (
        formatter(chat("chat"), make(shows)),
        {"role": "assistant", "content": "5", "reasoning_content": THOUGHT},
    )
    talk = read(USER, said, {"role": "user", "content": "R"}, {"role": "assistant", "content": "6"})
    turns = [text for kind, text in pieces(form, talk, True) if kind == "previous_turns"]
    assert turns == [f"<think>\n{THOUGHT}\n</think>\n\n5<end>"]
    assert THOUGHT in pieces(form, talk)[0][1]
    trimming = formatter(chat("chat"), make(shows.replace("m.reasoning_content +", "m.reasoning_content.strip() +")))
    assert "hm\n  deep\n</think>" in pieces(trimming, talk)[0][1]
    with pytest.raises(DataError, match=r"messages\[1\]: the chat template changes the thoughts"):
        trimming.parts(talk, previous_turns=True)


LAST_USER = (
    "{%- if messages[0].role == 'system' -%}{%- set system, rest = messages[0].content, messages[1:] -%}"
    "{%- else -%}{%- set rest = messages -%}{%- endif -%}"
    "{%- for m in rest -%}{%- if m.role == 'user' -%}"
    "{{ '[INST] ' + (system + '\\n\\n' if loop.last and system is defined else '') + m.content + '[/INST]' }}"
    "{%- else -%}{{ ' ' + m.content + '<end>' }}{%- endif -%}{%- endfor -%}"
)


def test_a_system_message_that_is_shown_in_the_last_turn_of_the_user(make: Make) -> None:
    """As Mistral's third version does: a previous turn would be learned without it."""
    form, system = formatter(chat("chat"), make(LAST_USER)), {"role": "system", "content": "Hush."}
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert pieces(form, read(system, *said)) == [
        ("prompt", "[INST] Hush.\n\na[/INST]"),
        ("answer", " b"),
        ("end", "<end>"),
    ]
    talk = read(system, *said, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"})
    assert pieces(form, talk)[0] == ("prompt", "[INST] a[/INST] b<end>[INST] Hush.\n\nc[/INST]")
    with pytest.raises(
        DataError, match=r"messages\[2\]: .*the system message in a later turn .*first message of the user"
    ):
        form.parts(talk, previous_turns=True)
    first = read(*said, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"})
    assert [text for kind, text in pieces(form, first, True) if kind == "previous_turns"] == [" b<end>"]


def test_arguments_stay_as_they_are_where_the_template_takes_text(make: Make) -> None:
    """As Qwen3's does; where it writes them anew, that is counted."""
    from tunix_rt.traces.calls import rewritten

    anew = CHATML.replace(
        "m.content +", "m.content + (m.tool_calls[0].function.arguments | tojson if m.tool_calls else '') +"
    )
    either = anew.replace(
        "m.tool_calls[0].function.arguments | tojson",
        "(m.tool_calls[0].function.arguments if m.tool_calls[0].function.arguments is string"
        " else m.tool_calls[0].function.arguments | tojson)",
    ).replace("m.content + (", "m.content + 'add' + (")
    anew = anew.replace("m.content + (", "m.content + 'add' + (")
    trace = read(USER, {"role": "assistant", "content": None, "tool_calls": [CALL]})
    for template, written, count in ((anew, '{"b": 1.1, "a": "é"}', 1), (either, CALL["function"]["arguments"], 0)):  # type: ignore[index]
        whole = pieces(formatter(chat("chat"), make(template)), trace)
        assert ("answer", f"add{written}") in whole
        assert rewritten([*trace.conversation, trace.completion], "".join(text for _, text in whole)) == count  # type: ignore[list-item]
