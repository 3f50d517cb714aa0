"""Conversations of several turns with a chat template, asked with the package `openai`, of a small model on torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import openai
import pytest
import tokenizers

from tests.conftest import config_of
from tests.serving.conftest import Served
from tunix_rt.backends.registry import create
from tunix_rt.batches.reader import Reader
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.model import FreshModel
from tunix_rt.inference.answer import Answerer
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.tokenizer import Tokenizer, train_char

pytestmark = pytest.mark.framework
TEMPLATE = (
    "{%- for m in messages -%}{{ '[' + m.role + ']' }}"
    "{%- if m.role == 'assistant' and m.reasoning_content -%}"
    "{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{%- endif -%}"
    "{{ m.content + '<end>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '[assistant]<think>\\n' }}{%- endif -%}"
)
"""Thoughts of previous turns are shown from a field of their own, and the prompt opens those of the next answer."""
UNTIED = "model.source.tie_word_embeddings=false"
"""Or it would repeat the last token for ever."""
WORDS = ("model=from_path", "tokenizer=pretrained", "format=think_chat", "generation.max_new_tokens=12")
TALK: list[dict[str, str]] = [
    {"role": "system", "content": "Count."},
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "2", "reasoning_content": "one and one"},
    {"role": "user", "content": "And one more?"},
    {"role": "assistant", "content": "3"},
    {"role": "user", "content": "And one less?"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, and a token for every character."""
    folder, source = (
        tmp_path_factory.mktemp("chat"),
        config_of(["model=nano", "model.source.max_position_embeddings=256", UNTIED]).model.source,
    )
    assert isinstance(source, FreshModel)
    train_char([TEMPLATE, str(TALK), "\n"], None, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    tokenizer = Tokenizer.load(folder)
    write_fresh(folder, source, tokenizer.vocab_size, 4, tokenizer.pad_id, tokenizer.end_id)
    return folder


@pytest.fixture
def client(folder: Path, serve_ruled: Callable[..., Served]) -> Iterator[Any]:
    def make() -> Answerer:
        backend = create(
            BackendConfig(name="torch", precision="float32"), HardwareConfig(platform="cpu", threads=1), folder
        )
        config = config_of([*WORDS, f"model.source.path={folder}"])
        return Answerer(backend, backend.load(folder, None), Reader.of(folder, config.format), config.generation, 0)

    served = serve_ruled(make=make)
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_three_turns_are_asked_as_the_template_shows_them(client: Any, folder: Path) -> None:
    """What the model is asked has, by another program's rendering, the same continuation, number by number."""
    template, tokenizer = jinja2.Template(TEMPLATE), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    how: dict[str, Any] = {"model": "ruled", "temperature": 0}
    answers = set()
    for length in (2, 4, 6):
        shown = template.render(messages=TALK[:length], add_generation_prompt=True)
        assert shown.startswith("[system]Count.<end>") and shown.count("one and one") == (length > 2)
        expected = client.completions.create(prompt=tokenizer.encode(shown).ids, logprobs=0, **how)
        found = client.chat.completions.create(messages=TALK[:length], logprobs=True, **how)
        assert found.usage.prompt_tokens == expected.usage.prompt_tokens
        values = [one.logprob for one in found.choices[0].logprobs.content]
        assert values == pytest.approx(expected.choices[0].logprobs.token_logprobs[: len(values)], abs=1e-4)
        message = found.choices[0].message
        assert message.content == "" and message.reasoning_content == expected.choices[0].text
        stream = client.chat.completions.create(messages=TALK[:length], stream=True, **how)
        deltas = [choice.delta for chunk in stream for choice in chunk.choices]
        assert "".join(getattr(one, "reasoning_content", "") for one in deltas) == message.reasoning_content
        assert "".join(one.content or "" for one in deltas) == ""
        answers.add(message.reasoning_content)
    assert len(answers) == 3, "the turns before count"
