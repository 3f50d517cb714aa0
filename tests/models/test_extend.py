"""A tokenizer with more tokens than the model has rows: what is there stays, what is new is the mean."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.families import CASES, write
from tunix_rt.errors import DataError, ModelError
from tunix_rt.models.extend import grown, with_tokens
from tunix_rt.models.folder import read_architecture, read_stop_ids, read_weights
from tunix_rt.models.tokenizer import Tokenizer, train_char

TAGS = ("<think>", "</think>")
ALPHABET = "".join(chr(0x100 + i) for i in range(51))
"""With `<pad>` and `<end>` 53 tokens: as many as the models have rows."""


@pytest.fixture(scope="module", params=["gpt2", "llama", "gemma2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied model, an untied one in shards, and one in bfloat16."""
    made = write(tmp_path_factory.mktemp("model") / request.param, CASES[request.param])
    train_char([], ALPHABET, made)
    return made


def test_new_rows_are_the_mean_and_transformers_agrees(folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = with_tokens(folder, TAGS, tmp_path)
    before, after = read_weights(folder), read_weights(made)
    assert read_architecture(made).vocab_size == 55
    assert read_stop_ids(made) == read_stop_ids(folder)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name].shape != after[name].shape}
    assert len(changed) == (1 if read_architecture(folder).tie_embeddings else 2)
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name][: len(tensor)], tensor)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference.resize_token_embeddings(55, mean_resizing=True)
    ours = AutoModelForCausalLM.from_pretrained(made)
    assert ours.dtype == torch.float32
    for part in ("get_input_embeddings", "get_output_embeddings"):
        own, theirs = (getattr(model, part)().weight.detach() for model in (ours, reference))
        np.testing.assert_allclose(own, theirs, atol=2e-3)
        np.testing.assert_array_equal(own[53], own[54])
    ids = torch.tensor([[5, 7, 9]])
    with torch.no_grad():
        np.testing.assert_allclose(ours(ids).logits[..., :53], model(ids).logits, rtol=1e-5, atol=1e-5)
    text = f"{TAGS[0]}{ALPHABET[:3]}{TAGS[1]}"
    assert AutoTokenizer.from_pretrained(made)(text).input_ids == [53, 2, 3, 4, 54]


def test_it_is_made_once_and_not_where_nothing_is_new(folder: Path, tmp_path: Path) -> None:
    assert with_tokens(folder, (), tmp_path) == folder
    made = with_tokens(folder, TAGS, tmp_path)
    written = (made / "model.safetensors").stat().st_mtime_ns
    assert with_tokens(folder, TAGS, tmp_path) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == written
    assert with_tokens(made, TAGS, tmp_path) == made
    assert with_tokens(folder, TAGS[:1], tmp_path) != made


def test_a_tokenizer_that_outgrew_its_model_gets_its_rows_when_asked(folder: Path, tmp_path: Path) -> None:
    """Ids beyond the embeddings would be an error in torch, and silently another row in jax."""
    more, new = tmp_path / "more", ["<a>", "<b>", "<c>"]
    shutil.copytree(folder, more)
    train_char([], ALPHABET, more, new)
    for asked, lacking in (([], "'<a>', '<b>', '<c>'"), (["<b>"], "'<a>', '<c>'")):
        with pytest.raises(ModelError, match=rf"has 56 tokens, but .* has 53 rows of embeddings, none for {lacking};"):
            with_tokens(more, asked, tmp_path / "cache")
    made = with_tokens(more, new, tmp_path / "cache")
    assert read_architecture(made).vocab_size == 56
    assert with_tokens(made, new, tmp_path / "cache") == made


def test_the_characters_of_another_model_s_tokenizer_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    train_char([], ALPHABET + "xyz" * 7, tmp_path / "other")
    with pytest.raises(ModelError, match=r"other: tokenizer\.json has 56 tokens.*put the model's own tokenizer there$"):
        with_tokens(tmp_path / "other", (), tmp_path / "cache")


def test_a_special_token_without_a_row_may_be_there_but_not_in_a_text(folder: Path, tmp_path: Path) -> None:
    """As in Gemma 3 without images: plain transformers opens it, and fails at the first such id."""
    from tokenizers import Tokenizer as Inner

    shutil.copytree(folder, tmp_path / "image")
    inner = Inner.from_file(str(folder / "tokenizer.json"))
    inner.add_special_tokens(["<image>"])
    inner.save(str(tmp_path / "image" / "tokenizer.json"))
    assert with_tokens(tmp_path / "image", (), tmp_path / "cache") == tmp_path / "image"
    tokenizer = Tokenizer.load(tmp_path / "image")
    assert tokenizer.encode(ALPHABET[:2]).ids == [2, 3]
    assert tokenizer.unknown(f"{ALPHABET[:2]}<image>") == {"<image>"}
    with pytest.raises(DataError, match="the model has no row of embeddings for '<image>'"):
        tokenizer.encode(f"{ALPHABET[:2]}<image>")
    stopping = with_tokens(tmp_path / "image", (), tmp_path / "cache", stops=[ALPHABET[0]])
    assert read_architecture(stopping).vocab_size == 53, "only a token that is asked for gets a row"
    assert read_architecture(with_tokens(tmp_path / "image", ["<image>"], tmp_path / "cache")).vocab_size == 54
    for name in ("eos_token", "pad_token"):
        settings = json.loads((folder / "tokenizer_config.json").read_text()) | {name: "<image>"}
        (tmp_path / "image" / "tokenizer_config.json").write_text(json.dumps(settings))
        with pytest.raises(ModelError, match="none for '<image>'"):
            with_tokens(tmp_path / "image", (), tmp_path / "cache")


def test_rows_without_a_token_are_taken_first(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "fewer")
    train_char([], ALPHABET[:40], tmp_path / "fewer")
    made = with_tokens(tmp_path / "fewer", TAGS, tmp_path / "cache")
    assert read_architecture(made).vocab_size == 53
    assert Tokenizer.load(made).encode(TAGS[0]).ids == [42]
    for name, tensor in read_weights(folder).items():
        np.testing.assert_array_equal(read_weights(made)[name], tensor)


def test_rows_are_never_lost(folder: Path) -> None:
    with pytest.raises(ModelError, match="53 rows of embeddings cannot shrink to 52"):
        grown(folder, 52)


def test_a_declared_stop_token_ends_generation_in_the_copy(folder: Path, tmp_path: Path) -> None:
    """Prevents: a model that learns the end of its turns, and goes on writing behind it."""
    token = "<turn>"
    made = with_tokens(folder, [token], tmp_path / "cache", stops=[token])
    assert token in Tokenizer.load(made).end_tokens and set(read_stop_ids(folder)) < set(read_stop_ids(made))
    assert with_tokens(made, [token], tmp_path / "cache", stops=[token]) == made, "nothing is left to add"
    with pytest.raises(ModelError, match=r"model.stop_tokens: '<no>' is not a token of .*tokenizer.added_tokens"):
        with_tokens(folder, [], tmp_path / "cache", stops=["<no>"])
