"""The law: between the template's own tokens, the text of the targets is the source's text, byte for byte.

Hostile text goes through every adapter and every kind of format, and is compared with what `transformers` itself makes
of the same messages, its assistant mask included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.traces.templates import QWEN3, R1, Make
from tunix_rt.batches.encode import encode
from tunix_rt.config.choices import Adapter
from tunix_rt.config.dataset import LossWeights
from tunix_rt.config.format import ChatFormat, FormatConfig, PlainFormat, TemplateFormat, ThinkChatFormat, ThinkFormat
from tunix_rt.errors import DataError
from tunix_rt.models.folder import write_generation_config
from tunix_rt.models.tokenizer import Tokenizer, train_bpe
from tunix_rt.traces.adapters import adapt
from tunix_rt.traces.format import Formatter, formatter
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.trace import Trace

pytestmark = pytest.mark.framework

HOSTILE = [
    "def add(a, b):\n    if a is None:\n\treturn b\n    return a + b\n",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "\\begin{aligned}\na &= 1 \\\\\nb &= 2\n\\end{aligned}",
    "pip install \\\n  x\n",
    "line\r\nline\r\n",
    "one\u2028two\u2029three\x85four\x0bfive",
    "ما هو ٢+٢؟",
    "👩‍👩‍👧‍👦 🇨🇭 e\u0301 ﬁ",
    "\ttab\t",
    "trailing   \n\n\n",
    "  leading",
    "Answer: no\nAnswer: yes\nThat is all.",
    "#### 5",
    "\\boxed{\\frac{1}{2}}",
    "<think>\nhm\n  deep\n</think>\n\nUse it.\n\n1. Do.",
    "{{ jinja }} {% for %}",
    "a",
]
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
TEXT = (
    st.lists(st.sampled_from(HOSTILE) | ANY, min_size=1, max_size=4)
    .map("".join)
    .filter(lambda text: text.strip() and not any(token in text for token in ("<pad>", "<end>")))
)
CHATML = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\\n' }}{%- if m.role == 'assistant' -%}"
    "{% generation %}{{ m.content + '<end>' }}{% endgeneration %}{{ '\\n' }}"
    "{%- else -%}{{ m.content + '<end>\\n' }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
MISTRAL = (
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{% generation %}{{ ' ' + m.content + '<end>' }}"
    "{% endgeneration %}{%- else -%}{{ '[INST] ' + m.content + ' [/INST]' }}{%- endif -%}{%- endfor -%}"
)
ZEPHYR = (
    "{%- for m in messages -%}{{ '<|' + m.role + '|>\\n' }}{%- if m.role == 'assistant' -%}{% generation %}"
    "{{ m.content + '<end>' }}{% endgeneration %}{{ '\\n' }}{%- else -%}{{ m.content + '<end>\\n' }}{%- endif -%}"
    "{%- endfor -%}"
)
"""Without a generation prompt."""
TEMPLATES = {"chatml": CHATML, "mistral": MISTRAL, "zephyr": ZEPHYR}
WEIGHTS = LossWeights(prompt=0, previous_turns=1, steps=1, answer=1, end=1)
PLAIN: list[FormatConfig] = [
    PlainFormat(kind="plain", prompt_end="\n", step_end="\n", answer_start="Answer: ", reader="auto"),
    ThinkFormat(kind="think", prompt_end="", step_end="\n", reader="auto"),
    TemplateFormat(kind="template", prompt="Q: {prompt}\n", step="{step}\n", answer="A: {answer}", reader="auto"),
]


def chat(kind: str, reader: Any = "auto") -> FormatConfig:
    values: dict[str, Any] = {"system": None, "variables": {}, "date": None, "step_end": "\n", "reader": reader}
    if kind == "think_chat":
        return ThinkChatFormat(kind="think_chat", **values)
    return ChatFormat(kind="chat", answer_start="Answer: ", **values)


FORMS = [("chatml", config) for config in PLAIN] + [
    (name, chat(kind)) for name in TEMPLATES for kind in ("chat", "think_chat")
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """A byte-level tokenizer for each template: it has every character."""
    made = {}
    for name, template in TEMPLATES.items():
        folder = tmp_path_factory.mktemp(name)
        train_bpe(["the quick brown fox " * 5], 300, folder)
        (folder / "chat_template.jinja").write_text(template, "utf-8")
        write_generation_config(folder, (1,), 0)
        made[name] = Tokenizer.load(folder)
    return made


def records(prompt: str, text: str) -> dict[Adapter, dict[str, Any]]:
    """The same prompt and completion in every shape that holds text."""
    said = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
    return {
        "chat": {"messages": said},
        "sharegpt": {"conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": text}]},
        "alpaca": {"instruction": prompt, "input": "", "output": text},
        "prompt_completion": {"prompt": prompt, "completion": text},
        "problem_solution": {"problem": prompt, "solution": text},
        "preference": {"prompt": prompt, "chosen": text, "rejected": "x"},
    }


def targets(form: Formatter, tokenizer: Tokenizer, trace: Trace) -> str:
    """The text of the tokens with a weight."""
    encoded = encode(form.parts(trace, previous_turns=True), tokenizer, WEIGHTS)
    learned = encoded.ids[encoded.weights > 0]
    return tokenizer._inner.decode(learned.tolist(), skip_special_tokens=False)


@settings(deadline=None, max_examples=50)
@given(TEXT, TEXT)
def test_what_is_learned_is_the_text_of_the_source(tokenizers: dict[str, Tokenizer], prompt: str, text: str) -> None:
    for adapter, record in records(prompt, text).items():
        trace = adapt(record, adapter, "f:1", Rules())
        for name, config in FORMS:
            form, lead = formatter(config, tokenizers[name]), " " if name == "mistral" else ""
            assert targets(form, tokenizers[name], trace) == f"{lead}{text}<end>"
            parsed = form.parse(f"{lead}{text}")
            if parsed.problem is None:
                steps = tuple(step.content for step in trace.steps)
                assert (parsed.steps, parsed.answer) == (steps, trace.final_answer)


@settings(deadline=None, max_examples=30)
@given(st.lists(TEXT, min_size=2, max_size=6).filter(lambda said: len(said) % 2 == 0))
def test_tokens_and_targets_are_those_of_transformers(tokenizers: dict[str, Tokenizer], said: list[str]) -> None:
    """The assistant mask of `apply_chat_template` says which tokens the assistant wrote, in every turn."""
    from transformers import AutoTokenizer

    roles = ("user", "assistant") * (len(said) // 2)
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
    if any("<think>" in text for text in said[1:-1:2]):
        return  # thoughts of previous turns are left to the template: tested with the adapters
    trace = adapt({"messages": messages}, "chat", "f:1", Rules())
    for name, tokenizer in tokenizers.items():
        theirs = AutoTokenizer.from_pretrained(str(tokenizer._folder))
        whole = theirs.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
        form = formatter(chat("chat"), tokenizer)
        ours = encode(form.parts(trace, previous_turns=True), tokenizer, WEIGHTS)
        length = len(ours.ids)
        np.testing.assert_array_equal(ours.ids, whole["input_ids"][:length])
        mask = np.array(whole["assistant_masks"])
        np.testing.assert_array_equal(ours.weights > 0, mask[:length] == 1, err_msg=name)
        assert not mask[length:].any()
        asked = form.prompt(trace.conversation)
        np.testing.assert_array_equal(ours.ids[: len(tokenizer.ids(asked))], tokenizer.ids(asked))


def test_the_law_holds_for_a_file_of_the_kinds_that_failed(tokenizers: dict[str, Tokenizer], tmp_path: Path) -> None:
    """Prevents what was seen: indentation lost, lines moved, backslashes added, solutions moved into the thoughts."""
    form = formatter(chat("chat"), tokenizers["chatml"])
    for text in HOSTILE:
        trace = adapt(records("Q", text)["chat"], "chat", "f:1", Rules())
        assert targets(form, tokenizers["chatml"], trace) == f"{text}<end>"


@pytest.mark.parametrize("template", [QWEN3, R1])
@pytest.mark.parametrize("text", ["<think>\nhm\n</think>\n\n5", "<think>hm</think>5", "<think>\n hm \n</think>\n5\n6"])
def test_thoughts_stay_as_they_are_where_the_template_writes_them_anew(template: str, text: str, make: Make) -> None:
    form = formatter(chat("chat"), make(template))
    opened = "<think>\n" if template == R1 else ""
    if not text.startswith(opened):
        with pytest.raises(DataError, match="does not go on from there"):
            form.parts(adapt(records("Q", text)["chat"], "chat", "f:1", Rules()))
        return
    parts = form.parts(adapt(records("Q", text)["chat"], "chat", "f:1", Rules()))
    assert parts[0].text.endswith(opened) and parts[-1].text == "<end>"
    assert "".join(part.text for part in parts[1:-1]) == text.removeprefix(opened)


def test_white_space_that_a_template_trims_can_be_declared_away(make: Make) -> None:
    trimming = CHATML.replace("m.content +", "(m.content | trim) +")
    form = formatter(chat("chat"), make(trimming))
    for adapter, record in records("Q \n", " A\n").items():
        with pytest.raises(DataError, match=r"dataset.strip=true"):
            form.parts(adapt(record, adapter, "f:1", Rules()))
        rules = Rules(strip=True)
        parts = form.parts(adapt(record, adapter, "f:1", rules))
        assert parts[-2].text == "A" and rules.noted["white space at the ends removed"] == 2


def test_steps_dropped_leave_the_answer_as_it_stands(tokenizers: dict[str, Tokenizer]) -> None:
    form = formatter(chat("chat"), tokenizers["chatml"])
    for text, left in (
        ("<think>\nhm\n</think>\n\n  Use it.\nDone. ", "  Use it.\nDone. "),
        ("one\ntwo\n#### 5", "#### 5"),
        ("one\n5", "5"),
    ):
        trace = adapt(records("Q", text)["chat"], "chat", "f:1", Rules())
        parts = form.parts(trace, "drop")
        assert "".join(part.text for part in parts if part.kind in ("steps", "answer")) == left


def test_labelled_spans_have_their_weights(tokenizers: dict[str, Tokenizer]) -> None:
    form, tokenizer = formatter(chat("chat"), tokenizers["chatml"]), tokenizers["chatml"]
    trace = adapt(records("Q", "one\ntwo\n#### 5")["chat"], "chat", "f:1", Rules())
    weights = LossWeights(prompt=0, previous_turns=0, steps=0.5, answer=2, end=3)
    encoded = encode(form.parts(trace), tokenizer, weights)
    shown = [(tokenizer.piece(int(i)), float(w)) for i, w in zip(encoded.ids, encoded.weights, strict=True) if w]
    assert "".join(text for text, weight in shown if weight == 0.5) == "one\ntwo\n#### "
    assert [item for item in shown if item[1] != 0.5] == [("5", 2.0), ("<end>", 3.0)]


def test_declared_weights_of_messages_are_honoured(tokenizers: dict[str, Tokenizer]) -> None:
    """OpenAI's `weight: 0`: such a turn is shown and not learned, whatever the section says."""
    form, tokenizer = formatter(chat("chat"), tokenizers["chatml"]), tokenizers["chatml"]
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "wrong", "weight": 0},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "half", "weight": 0.5},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "right"},
    ]
    trace = adapt({"messages": said}, "chat", "f:1", Rules())
    for previous_turns in (True, False):
        encoded = encode(form.parts(trace, previous_turns=previous_turns), tokenizer, WEIGHTS)
        learned = {weight: tokenizer.decode(encoded.ids[encoded.weights == weight].tolist()) for weight in (0.5, 1.0)}
        assert learned == {0.5: "half", 1.0: "right"}


TOOLS = (
    "{%- if tools -%}{{ '[tools]' }}{%- for t in tools -%}{{ t | tojson }}{%- endfor -%}{{ '<end>' }}{%- endif -%}"
    "{%- for m in messages -%}{{ '[' + m.role + ']' }}{%- if m.tool_calls -%}{{ m.content }}"
    "{%- for c in m.tool_calls -%}"
    "{{ '<tool_call>' + c.function.name + ' ' + (c.function.arguments | tojson) + '</tool_call>' }}{%- endfor -%}"
    "{%- else -%}{{ m.content }}{%- endif -%}{{ '<end>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '[assistant]' }}{%- endif -%}"
)


def test_tools_and_calls_reach_the_template_and_a_call_is_learned(make: Make) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}
    said = [
        {"role": "user", "content": "Weather in Bern?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "content": "12 C", "name": "weather"},
        {"role": "assistant", "content": "It is 12 C."},
    ]
    form = formatter(chat("chat"), make(TOOLS))
    whole = form.parts(adapt({"messages": said, "tools": [tool]}, "chat", "f:1", Rules()), previous_turns=True)
    written = 'I look.<tool_call>weather {"city": "Bern"}</tool_call>'
    assert "[tools]" in whole[0].text and '"name": "weather"' in whole[0].text
    assert [part.text for part in whole if part.kind == "previous_turns"] == [f"{written}<end>"]
    assert "".join(part.text for part in whole if part.kind in ("steps", "answer")) == "It is 12 C."
    calling = form.parts(adapt({"messages": said[:2], "tools": [tool]}, "chat", "f:1", Rules()))
    assert [(part.kind, part.text) for part in calling[1:]] == [("answer", written), ("end", "<end>")]


def test_a_call_without_text_is_learned_at_its_own_place(make: Make) -> None:
    """Prevents: the end of the user's turn as a target, and the call as context."""
    call = {"type": "function", "function": {"name": "weather", "arguments": "{}"}}
    said = [
        {"role": "user", "content": "weather? <tool_call>"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "12 C"},
        {"role": "assistant", "content": "It is 12 C."},
    ]
    parts = formatter(chat("chat"), make(TOOLS)).parts(adapt({"messages": said}, "chat", "f:1", Rules()), "keep", True)
    assert [part.text for part in parts if part.kind == "previous_turns"] == ["<tool_call>weather {}</tool_call><end>"]
    assert parts[0].text.endswith("<end>\n[assistant]")


def test_what_a_template_hides_is_seen_though_its_name_occurs_in_the_text(make: Make) -> None:
    form, tool = formatter(chat("chat"), make(CHATML)), {"name": "search", "parameters": {}}
    said = [{"role": "user", "content": "search it"}, {"role": "assistant", "content": "I search."}]
    with pytest.raises(DataError, match="does not show tools"):
        form.parts(adapt({"messages": said, "tools": [tool]}, "chat", "f:1", Rules()))
    calling = [said[0], said[1] | {"tool_calls": [{"function": {"name": "search", "arguments": {}}}]}]
    with pytest.raises(DataError, match="does not show the assistant's tool calls"):
        form.parts(adapt({"messages": calling}, "chat", "f:1", Rules()))


def test_special_tokens_are_refused_in_every_field(make: Make) -> None:
    form = formatter(chat("chat"), make(TOOLS))
    call = {"function": {"name": "search", "arguments": {"q": "a<end>"}}}
    said = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    with pytest.raises(DataError, match=r"'<end>' in .* would be read as a special token"):
        form.parts(adapt({"messages": said}, "chat", "f:1", Rules()))


def test_newlines_of_a_template_are_not_taken_for_those_of_the_text(make: Make) -> None:
    form = formatter(chat("chat"), make(QWEN3))
    with pytest.raises(DataError, match="trims white space"):
        form.parts(adapt(records("Q", "\n\nDone")["chat"], "chat", "f:1", Rules()))


def test_what_a_template_cannot_show_is_an_error_with_the_cause(make: Make) -> None:
    form = formatter(chat("chat"), make(CHATML))
    call = {"type": "function", "function": {"name": "weather", "arguments": {}}}
    tool = {"name": "weather", "parameters": {}}
    said = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    with pytest.raises(DataError, match="the chat template does not show tools"):
        form.parts(adapt({"messages": said, "tools": [tool]}, "chat", "f:1", Rules()))
    calling = [said[0], {"role": "assistant", "content": "", "tool_calls": [call]}]
    with pytest.raises(DataError, match="does not show the tool calls of previous turns"):
        form.parts(adapt({"messages": [*calling, {"role": "tool", "content": "12"}, said[1]]}, "chat", "f:1", Rules()))
    with pytest.raises(DataError, match=r"does not show the assistant's tool calls \(\[\{\"name\": \"weather\""):
        form.parts(adapt({"messages": calling}, "chat", "f:1", Rules()))
    hiding = formatter(chat("chat"), make(CHATML.replace("{%- else -%}", "{%- elif m.role == 'user' -%}")))
    with pytest.raises(DataError, match=r"messages\[0\]: the chat template does not show what 'system' says"):
        hiding.parts(adapt({"messages": [{"role": "system", "content": "Hush."}, *said]}, "chat", "f:1", Rules()))


def test_developer_is_system_where_the_template_does_not_know_it(make: Make) -> None:
    said = [{"role": "developer", "content": "Hush."}, {"role": "user", "content": "Q"}]
    trace = adapt({"messages": [*said, {"role": "assistant", "content": "A"}]}, "chat", "f:1", Rules())
    refusing = "{% for m in messages %}{% if m.role == 'developer' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    assert "<|im_start|>developer" in formatter(chat("chat"), make(CHATML)).parts(trace)[0].text
    assert "<|im_start|>system" in formatter(chat("chat"), make(refusing + CHATML)).parts(trace)[0].text
