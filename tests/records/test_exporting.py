"""A run's model for other programs: prompts in Ollama's templates, the card as the hub's client reads it, uploads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.records.go_templates import render
from tests.records.hub_uploads import OWNER, TOKEN, serving
from tunix_rt.config.format import ChatFormat, PlainFormat, TemplateFormat, ThinkChatFormat
from tunix_rt.errors import InputError, ModelError
from tunix_rt.experiment import recorded_config
from tunix_rt.exporting.conversation import Turns
from tunix_rt.exporting.go_template import literal, template
from tunix_rt.exporting.ollama import modelfile, turns_of
from tunix_rt.files import read_json
from tunix_rt.models import gguf
from tunix_rt.models.content import model_files
from tunix_rt.models.folder import read_weights
from tunix_rt.models.tokenizer import Tokenizer, train_char
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.format import formatter
from tunix_rt.traces.trace import Message

Types = Callable[..., Any]
LETTERS = "".join(map(chr, range(32, 127))) + "\né⟦⟧"
CHAT = (
    "{% if messages[0].role != 'system' %}[system]be \"brief\"\\ {{ '{{' }}<end>\n{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
REFUSED = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
WITHOUT_SYSTEM = REFUSED + CHAT
FORGETS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}"
    "<end>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
COUNTS = "{% for m in messages %}[{{ m.role }} {{ m.content | length }}]{{ m.content }}<end>{% endfor %}"
PLAIN = PlainFormat(kind="plain", prompt_end="\n=", step_end=";", answer_start="")
OWN = TemplateFormat(kind="template", prompt='"Q": {prompt}\n', step="{step}\n", answer="A: {answer}")


def chat(**changes: Any) -> ChatFormat:
    given: dict[str, Any] = {
        "system": None,
        "variables": {},
        "date": None,
        "step_end": "\n",
        "answer_start": "Answer: ",
    }
    return ChatFormat(kind="chat", **(given | changes))


THINK = ThinkChatFormat(kind="think_chat", system=None, variables={}, date=None, step_end="\n")


def tokenizer(folder: Path, chat_template: str | None = None) -> Tokenizer:
    train_char([], LETTERS, folder)
    file = folder / "tokenizer_config.json"
    if chat_template is not None:
        file.write_text(json.dumps(read_json(file) | {"chat_template": chat_template}))
    return Tokenizer.load(folder)


def ask(turns: Turns, messages: Sequence[Message]) -> str:
    """What Ollama gives the model."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    return render(template(turns), [{"Role": m.role, "Content": m.content} for m in messages], system)


def conversation(*roles: str) -> list[Message]:
    said = ["1+1=?", 'a "b"\n{{ .Content }}', "x\\y `z`", "é", "last"]
    return [Message(role, said[place % len(said)]) for place, role in enumerate(roles)]


SINGLE, SEVERAL = ["user"], ["user", "assistant", "user"]
CASES = {
    "one prompt": (PLAIN, None, False, [SINGLE]),
    "own text around it": (OWN, None, False, [SINGLE]),
    "chat": (chat(), CHAT, True, [SINGLE, SEVERAL, ["system", *SEVERAL], [*SEVERAL, "assistant", "user"]]),
    "chat, a system prompt of its own": (chat(system="only digits"), CHAT, True, [SINGLE, SEVERAL, ["system", "user"]]),
    "chat without system": (chat(), WITHOUT_SYSTEM, True, [SINGLE, SEVERAL]),
    "thoughts that are forgotten": (THINK, FORGETS, False, [SINGLE, ["system", "user"]]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_template_of_ollama_writes_the_prompts_of_the_run(case: str, tmp_path: Path) -> None:
    config, jinja, several, conversations = CASES[case]
    own = tokenizer(tmp_path, jinja)
    turns = turns_of(own, config)
    assert turns.several == several
    for roles in conversations:
        messages = conversation(*roles)
        assert ask(turns, messages) == formatter(config, own).prompt(messages), roles
    if not several:
        assert ask(turns, conversation(*SEVERAL)) == formatter(config, own).prompt(conversation(*SEVERAL)[-1:])


def test_prompts_that_are_no_texts_between_messages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Ollama: .*export the model alone \(--to gguf\)"):
        turns_of(tokenizer(tmp_path, COUNTS), chat())


def test_what_llama_cpp_puts_before_every_text_is_left_out(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    file = tmp_path / "tokenizer.json"
    begins = {
        "type": "TemplateProcessing",
        "special_tokens": {"<pad>": {"id": "<pad>", "ids": [0], "tokens": ["<pad>"]}},
    }
    parts = {name: [{"SpecialToken": {"id": "<pad>", "type_id": 0}}] for name in ("single", "pair")}
    parts["single"].append({"Sequence": {"id": "A", "type_id": 0}})
    parts["pair"] += [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]
    file.write_text(json.dumps(read_json(file) | {"post_processor": begins | parts}))
    own = Tokenizer.load(tmp_path)
    assert own.begin_token == "<pad>" and formatter(PLAIN, own).prompt(conversation("user")).startswith("<pad>")
    assert "<pad>" + ask(turns_of(own, PLAIN), conversation("user")) == formatter(PLAIN, own).prompt(
        conversation("user")
    )


@given(text=st.text())
@settings(max_examples=40)
def test_any_text_survives_as_a_literal(text: str) -> None:
    assert render("{{ " + literal(text) + " }}", []) == text
    assert '"""' not in literal(text).strip('"') and "\n" not in literal(text)


def test_a_folder_for_ollama(finished: RunFolder, types: Types, tmp_path: Path) -> None:
    assert types("export", "mine", "--to", "ollama", "--dtype", "F32").code == 0
    folder = finished.root / f"{finished.name.replace('/', '-')}-ollama"
    gguf.convert(folder / "model.gguf", tmp_path / "back")
    ours, theirs = read_weights(finished.model), read_weights(tmp_path / "back")
    assert all((ours[name] == theirs[name]).all() for name in ours)
    lines = (folder / "Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./model.gguf" and 'PARAMETER stop "<end>"' in lines
    assert {"PARAMETER temperature 0.0", "PARAMETER repeat_penalty 1.0", "PARAMETER num_predict 8"} <= set(lines)
    longest = read_json(finished.model / "config.json")["max_position_embeddings"]
    assert f"PARAMETER num_ctx {longest}" in lines, "shorter than the least that is asked for"
    config = read_json(finished.model / "config.json") | {"max_position_embeddings": 131_072}
    (finished.model / "config.json").write_text(json.dumps(config))
    declared = recorded_config(finished)
    text = modelfile(finished.model, declared.format, declared.generation, longest_prompt=1020)
    assert "PARAMETER num_ctx 2048\n" in text, "Ollama would allocate a cache for 131,072 tokens"
    found = re.fullmatch(r'TEMPLATE """(.*)"""', lines[1])
    assert found is not None
    question = next(json.loads(line) for line in finished.predictions.read_text().splitlines())["prompt"]
    plain = finished.read_config()["format"]
    asked = question.removesuffix(plain["prompt_end"])
    assert render(found[1], [{"Role": "user", "Content": asked}]) == question
    again = types("export", "mine", "--to", "ollama")
    assert again.code == 2 and "exists already" in again.err


@pytest.mark.parametrize("to", ["zip", "gguf", "card"])
def test_a_file_that_is_there_is_never_overwritten(finished: RunFolder, types: Types, to: str) -> None:
    """Prevents: `export RUN README.md --to card`, and the project's README is gone."""
    Path("README.md").write_text("mine")
    done = types("export", "mine", "README.md", "--to", to)
    assert done.code == 2 and "README.md: exists already; remove it, or name another" in done.err
    assert Path("README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("to", "word", "own"),
    [
        ("hub --repo me/small", "--dtype Q8_0", "--repo, --public, --merge, --license"),
        ("ollama", "--adapter", "--dtype"),
        ("card", "--no-model", "--license"),
    ],
)
def test_an_option_of_another_form_is_an_error(finished: RunFolder, types: Types, to: str, word: str, own: str) -> None:
    """Prevents: the full weights uploaded, though eight bits were asked for."""
    done = types("export", "mine", *word.split(), "--to", *to.split())
    assert done.code == 2
    assert f"{word.split()[0]}: no option of --to {to.split()[0]} (its own: {own})" in done.err


def test_the_card_is_what_the_record_says(finished: RunFolder, types: Types) -> None:
    from huggingface_hub import ModelCard

    before = {file: file.stat().st_mtime_ns for file in finished.path.rglob("*")}
    assert types("export", "mine", "--to", "card", "--output", "out/CARD.md", "--license", "apache-2.0").code == 0
    assert {file: file.stat().st_mtime_ns for file in finished.path.rglob("*")} == before
    card = ModelCard(Path("out/CARD.md").read_text())
    assert (card.data.license, card.data.library_name, card.data.base_model) == ("apache-2.0", "transformers", None)
    metrics = read_json(finished.metrics)
    results = {one.metric_type: one for one in card.data.eval_results}
    accuracy = results["accuracy"]
    assert accuracy.metric_value == metrics["accuracy"]["value"]
    assert accuracy.dataset_revision == read_json(finished.data)["splits"]["test"]["sha256"]
    assert f"n = {metrics['accuracy']['n']}" in accuracy.metric_name
    assert len(results) > 3 and finished.identity in card.text and "max_steps" in card.text
    assert str(Path.cwd()) not in card.content and sys.prefix not in card.content


@pytest.mark.parametrize("to", ["gguf", "ollama", "card"])
def test_an_unfinished_run_has_nothing_to_export(finished: RunFolder, types: Types, to: str) -> None:
    finished.status_file.write_text(json.dumps(finished.status() | {"state": "interrupted"}))
    said = types("export", "mine", "--to", to)
    assert said.code == 2 and "not finished" in said.err


def upload(url: str, token: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the client reads the address of the hub when it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    own = {"HF_ENDPOINT": url, "HF_HOME": str(Path.cwd() / "hf"), "HF_HUB_DISABLE_XET": "1"}
    own |= {} if token is None else {"HF_TOKEN": token}
    command = [sys.executable, "-m", "tunix_rt", "export", "mine", "--to", "hub", *words]
    return subprocess.run(command, env=kept | own, capture_output=True, text=True)


@pytest.mark.slow
def test_what_arrives_on_the_hub_is_the_folder_and_the_card(finished: RunFolder) -> None:
    with serving() as hub:
        done = upload(hub.url, TOKEN, "--repo", "small", "--json")
        assert done.returncode == 0, done.stderr
        there = hub.repositories[f"{OWNER}/small"]
        assert there.private and json.loads(done.stdout)["private"]
        assert there.files.keys() == {*model_files(finished.model), "README.md"}
        for name in model_files(finished.model):
            assert there.files[name] == (finished.model / name).read_bytes(), name
        assert b"model-index" in there.files["README.md"] and hub.blobs, "weights came the way of large files"
        assert TOKEN not in done.stdout + done.stderr
        wrong = upload(hub.url, "hf_of_nobody_at_all", "--repo", "small")
        assert wrong.returncode == 3 and "hf auth login" in wrong.stderr and "hf_of_nobody" not in wrong.stderr


@pytest.mark.slow
def test_without_a_login_nothing_is_sent(finished: RunFolder) -> None:
    with serving() as hub:
        said = upload(hub.url, None, "--repo", "small")
        assert said.returncode == 3 and "needs a login" in said.stderr and not hub.logins


def test_a_repository_that_everybody_sees_needs_the_word(monkeypatch: pytest.MonkeyPatch, finished: RunFolder) -> None:
    import huggingface_hub

    from tunix_rt.exporting.hub import export_hub

    class Api:
        def __init__(self, **_: Any) -> None:
            """Every repository is there, and public."""

        def create_repo(self, *_: Any, **__: Any) -> Any:
            return type("Made", (), {"repo_id": "someone/small"})

        def repo_info(self, *_: Any) -> Any:
            return type("Info", (), {"private": False})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(InputError, match="everybody sees it: --public"):
        export_hub(finished, "small", public=False, merged=False, licence=None)
