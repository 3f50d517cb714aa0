"""Tokenizers and chat templates written as GGUF: the same tokens for every text, or a refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.gguf_models import TEXTS, config_of, make, random
from tunix_rt.errors import ModelError
from tunix_rt.files import read_json, write_json
from tunix_rt.models import gguf
from tunix_rt.models.families.registry import read
from tunix_rt.models.folder import write_model
from tunix_rt.models.gguf_write import write_gguf
from tunix_rt.models.tokenizer import Tokenizer, train_bpe, write_tokenizer


def test_rows_without_a_token_and_templates_come_along(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "qwen2")
    file = folder / "tokenizer_config.json"
    write_json(file, read_json(file) | {"chat_template": "{{ messages[0].content }}"})
    write_gguf(folder, tmp_path / "model.gguf", "F32", "small")
    gguf.convert(tmp_path / "model.gguf", tmp_path / "back")
    tokenizer = Tokenizer.load(tmp_path / "back")
    assert tokenizer.chat([{"role": "user", "content": "hello"}], True) == "hello"
    assert tokenizer.vocab_size == 300 and tokenizer.piece(299) == "[PAD299]"


@settings(max_examples=40)
@given(text=st.text(st.sampled_from([*"abcdet 1234.,\né日😀'", "\r"]), max_size=40))
def test_texts_have_the_same_tokens_in_the_tokenizer_that_comes_back(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.getbasetemp() / "smollm splits"
    if not base.is_dir():
        write_model(base, config_of("llama"), random(read(config_of("llama"), "")))
        train_bpe(TEXTS, 290, base, ["<t>"])
        write_gguf(base, base / "model.gguf", "F32", "small")
        gguf.convert(base / "model.gguf", base / "back")
    for said in (text, f"{text}<t>{text}<end>"):
        assert Tokenizer.load(base).ids(said) == Tokenizer.load(base / "back").ids(said)


@pytest.mark.parametrize("scheme", ["first", "never"])
def test_sentencepiece_comes_back_with_its_bytes(scheme: str, tmp_path: Path) -> None:
    from gguf import GGUFReader
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁ahtce", "th", "▁t", "▁th", "the"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("t", "h"), ("▁", "t"), ("▁t", "h"), ("▁", "th"), ("th", "e")]
    inner = Inner(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if scheme == "first" else [])])
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    folder = make(tmp_path / "model", "llama")
    write_tokenizer(folder, inner, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    write_gguf(folder, tmp_path / "model.gguf", "F32", "small")
    gguf.convert(tmp_path / "model.gguf", tmp_path / "back")
    types = GGUFReader(tmp_path / "model.gguf").fields["tokenizer.ggml.token_type"].contents()
    assert types[:4] == [2, 3, 3, 6] and types[vocabulary["the"]] == 1 and types[-1] == 5
    ours, theirs = Tokenizer.load(folder), Tokenizer.load(tmp_path / "back")
    for text in ("the cat", "that é</s>the", "a  ahé日"):
        assert ours.ids(text) == theirs.ids(text) and ours.decode(ours.ids(text)) == theirs.decode(ours.ids(text))


def test_a_text_that_llama_cpp_would_split_otherwise_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "qwen3")
    write_json(folder / "config.json", read_json(folder / "config.json") | {"model_type": "llama"})
    state = read_json(folder / "tokenizer.json")
    state["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    weights = random(read(config_of("llama"), ""))
    write_model(folder, config_of("llama"), weights)
    with pytest.raises(ModelError, match=r"llama\.cpp splits no text as this tokenizer\.json does.*Whitespace"):
        write_gguf(folder, tmp_path / "model.gguf", "F32", "small")


@pytest.mark.acceptance  # 135 M parameters
def test_smollm2_is_written_as_its_file_has_it(smollm2_file: Path, tmp_path: Path) -> None:
    """A file of llama.cpp's own converter → a folder → a file: what the tokenizer is, the template, every number."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    gguf.convert(smollm2_file, tmp_path / "model")
    write_gguf(tmp_path / "model", tmp_path / "model.gguf", "F32", "small")
    original, ours = GGUFReader(smollm2_file), GGUFReader(tmp_path / "model.gguf")
    same = ["model", "pre", "tokens", "merges", "token_type", "eos_token_id", "padding_token_id", "bos_token_id"]
    for key in [*(f"tokenizer.ggml.{name}" for name in same), "tokenizer.chat_template", "llama.rope.freq_base"]:
        assert original.fields[key].contents() == ours.fields[key].contents(), key
    found = {tensor.name: tensor.data for tensor in ours.tensors}
    for tensor in original.tensors:
        assert np.array_equal(dequantize(tensor.data, tensor.tensor_type), found[tensor.name]), tensor.name
