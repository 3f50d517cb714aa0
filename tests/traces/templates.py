"""Chat templates that behave as those of well-known models do, and a tokenizer for them."""

from __future__ import annotations

from typing import Protocol

from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.trace import Message, Step, Trace

QWEN3 = (
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}"
    "{%- set said = m.content.split('</think>')[-1].lstrip('\\n') -%}"
    "{%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') if '</think>' in m.content -%}"
    "{{ '[assistant]' }}{%- if loop.last -%}{{ '<think>\\n' + (thought or '') + '\\n</think>\\n\\n' }}{%- endif -%}"
    "{{ said + '<end>\\n' }}"
    "{%- else -%}{{ '[' + m.role + ']' + m.content + '<end>\\n' }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '[assistant]' }}"
    "{%- if enable_thinking is defined and not enable_thinking -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}"
    "{%- endif -%}"
)
"""An empty block where nothing was thought; thinking of previous turns is left out."""
R1 = (
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{{ '|user|' + m.content }}"
    "{%- else -%}{{ '|bot|' + m.content.split('</think>')[-1] + '<end>' }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '|bot|<think>\\n' }}{%- endif -%}"
)
"""The prompt opens the block; no turn is shown with its thinking."""


class Make(Protocol):
    """Makes the tokenizer of a template."""

    def __call__(self, template: str | None, *, special: list[str] = ..., stops: list[int] = ...) -> Tokenizer: ...


def trace(
    prompt: str = "Q?", steps: tuple[str, ...] = ("one",), answer: str = "5", history: tuple[Message, ...] = ()
) -> Trace:
    """A trace of these parts, after a conversation."""
    messages = (*history, Message("user", prompt)) if history else ()
    return Trace("t", prompt, tuple(Step(i, "step", text) for i, text in enumerate(steps)), answer, {}, messages)
