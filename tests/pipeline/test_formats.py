"""From a file of conversations to numbers, in the formats of chats: what is asked is what was learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import config_of
from tests.traces.templates import QWEN3, R1
from tunix_rt.batches.encoded import EncodedDataset
from tunix_rt.batches.reader import Reader
from tunix_rt.config.model import FreshModel
from tunix_rt.errors import ModelError
from tunix_rt.inputs import write_prepared
from tunix_rt.models.folder import read_architecture, write_generation_config
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.tokenizer import Tokenizer, train_char
from tunix_rt.traces.prepared import PreparedData

CHATML = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
WORDS = (
    "model=from_path",
    "tokenizer=pretrained",
    "dataset=files",
    "dataset.name=talk",
    "dataset.source.train.adapter=chat",
    "dataset.split={validation: 0.0, test: 0.2}",
)


def talk(n: int, thoughts: bool = False) -> dict[str, object]:
    final = f"<think>\n{n + 1}+1={n + 2}\n</think>\n\n{n + 2}" if thoughts else f"{n + 1}+1={n + 2}\n#### {n + 2}"
    turns = [("system", "Count."), ("user", f"{n}+1?"), ("assistant", str(n + 1)), ("user", "And one more?")]
    said = [{"role": role, "content": content} for role, content in turns]
    return {"messages": [*said, {"role": "assistant", "content": final}], "id": f"t{n}"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny fresh model with a tokenizer for every character of the talks."""
    source = config_of(["model=nano"]).model.source
    assert isinstance(source, FreshModel)
    train_char([json.dumps(talk(n)) for n in range(30)] + ["[]<>/\n|Answer: think bot"], None, tmp_path / "model")
    tokenizer = Tokenizer.load(tmp_path / "model")
    write_fresh(tmp_path / "model", source, tokenizer.vocab_size, 0, tokenizer.pad_id, tokenizer.end_id)
    return tmp_path / "model"


def prepared(model: Path, template: str, *words: str) -> tuple[PreparedData, Reader]:
    (model / "chat_template.jinja").write_text(template, "utf-8")
    rows = [json.dumps(talk(n, thoughts=template in (QWEN3, R1))) for n in range(30)]
    (model.parent / "train.jsonl").write_text("\n".join(rows), "utf-8")
    paths = (f"model.source.path={model}", f"dataset.source.train.path={model.parent / 'train.jsonl'}")
    config = config_of([*WORDS, *paths, *words])
    folder = model.parent / "data"
    write_prepared(config, folder, None)
    data = PreparedData(folder)
    return data, Reader.of(data.model_folder, config.format)


@pytest.mark.parametrize("name", ["chat", "think_chat", "think_chat opened", "chat, all turns"])
def test_the_prompt_of_inference_is_the_beginning_of_what_was_learned(name: str, model: Path) -> None:
    words = [f"format={name.split()[0].strip(',')}", "format.system=Add."]
    template = {"think_chat": QWEN3, "think_chat opened": R1}.get(name, CHATML)
    if name == "chat, all turns":
        words.append("dataset.loss_weights.previous_turns=0.5")
    data, reader = prepared(model, template, *words)
    train = EncodedDataset.open(data.encoded("train"))
    traces = {trace.id: trace for trace in data.traces("train")}
    assert len(train) == len(traces) > 15
    for index, identity in enumerate(train.ids):
        trace = traces[identity]
        assert [message.role for message in trace.messages] == ["system", "user", "assistant", "user"]
        ids, weights = train.sequence(index)
        text, prompt, problem = reader.encode(trace.conversation, trace.tools)
        assert "Count." in text and "Add." not in text, "a row's own system message is the one that is shown"
        assert problem is None and trace.messages[1].content in text
        np.testing.assert_array_equal(ids[: len(prompt)], prompt)
        assert (weights[len(prompt) :] == 1).all() and ids[-1] == reader.tokenizer.end_id
        learned = reader.tokenizer.decode(ids[: len(prompt)][weights[: len(prompt)] == 0.5].tolist())
        assert learned == (trace.messages[2].content if name == "chat, all turns" else "")
        assert set(weights[: len(prompt)]) == ({0.0, 0.5} if name == "chat, all turns" else {0.0})
        parsed = reader.formatter.parse(reader.tokenizer.decode(ids[len(prompt) :].tolist()))
        assert (parsed.steps, parsed.answer) == ((trace.steps[0].content,), trace.final_answer)
    assert data.traces("test")


def test_added_tokens_reach_the_model_and_are_learned(model: Path) -> None:
    rows = read_architecture(model).vocab_size
    data, reader = prepared(model, QWEN3, "format=think_chat", 'tokenizer.added_tokens=["<think>","</think>"]')
    assert read_architecture(data.model_folder).vocab_size == rows + 2
    ids, weights = EncodedDataset.open(data.encoded("train")).sequence(0)
    assert weights[np.isin(ids, [rows, rows + 1])].tolist() == [1.0, 1.0]
    assert reader.tokenizer.piece(rows) == "<think>"


def test_an_end_token_at_which_generation_does_not_stop_is_refused(model: Path) -> None:
    write_generation_config(model, (0,), 0)
    with pytest.raises(ModelError, match=r"end token is '<end>', but .* generation stops at '<pad>'"):
        prepared(model, CHATML, "format=chat")
