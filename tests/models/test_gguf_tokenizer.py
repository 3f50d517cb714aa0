"""Tokenizers of GGUF files: ids of any text equal those of transformers' own loader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.families import CASES, write
from tunix_rt.errors import ModelError
from tunix_rt.models import gguf
from tunix_rt.models.gguf_tokenizer import SPLITS
from tunix_rt.models.tokenizer import Tokenizer

WriteGguf = Callable[..., Path]
TEXTS = [
    "",
    " ",
    "Gus has 141 books and gets 365 more; that's 506, isn't it? I'LL say so.",
    "    def f(x):\n\treturn x ** 2  # why?\r\n\n\n  \n",
    "Ünïcödé, 日本語, עברית, हिन्दी, 😀👩‍👩‍👧 and e\u0301 = é, ½ Ⅷ ٣٤٥ 12345678.",
    "\\frac{1}{2} \\\\ \\text{if } x\u2028 \u00a0\u3000 y",
    "<s>[INST] hi [/INST]</s><|end|><think>a</think> <unk> <0x41> ▁▁ Ġ",
    "  two before, two after  ",
    "| a | b |\n|---|---|\n",
    "don't DON'T 'tis x's 'S'll",
]
HOSTILE = st.text(
    st.sampled_from("aAbe'sStT019 \n\t\r\u2028\u00a0\u0301▁Ġ.,!?<|>/\\é日ק😀\u200d") | st.characters(), max_size=40
)


def _words(seed: int) -> list[str]:
    """Text for training: the texts above, and words of few letters and digits."""
    import random

    draw = random.Random(seed)
    return TEXTS * 3 + ["".join(draw.choices("abest0123 '\n", k=60)) for _ in range(200)]


def _trained(split: Any, first: list[str], alphabet: list[str]) -> tuple[list[str], list[str]]:
    """Tokens in the order of their ids, and merges, of a BPE trained with a pre-tokenizer."""
    import json

    from tokenizers import Tokenizer as Inner
    from tokenizers import models, trainers

    inner = Inner(models.BPE())
    inner.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=first, initial_alphabet=alphabet, show_progress=False, max_token_length=16
    )
    inner.train_from_iterator(_words(0), trainer)
    merges = [" ".join(pair) for pair in json.loads(inner.to_str())["model"]["merges"]]
    return [inner.id_to_token(number) for number in range(inner.get_vocab_size())], merges


def _keys(**values: Any) -> dict[str, Any]:
    return {f"tokenizer__ggml__{key}": value for key, value in values.items()}


def _byte_level(pre: str) -> dict[str, Any]:
    from tokenizers import Regex, pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre in GGUF_PRE_TOKENIZER_SPLITS:
        by_pattern = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[pre]), behavior="isolated")
        split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        split = pre_tokenizers.Sequence([by_pattern, split])
    tokens, merges = _trained(split, ["<|end|>", "<s>", "<think>"], pre_tokenizers.ByteLevel.alphabet())
    types = [3, 3, 4] + [1] * (len(tokens) - 3)
    return _keys(pre=pre, tokens=tokens, merges=merges, token_type=types, eos_token_id=0, bos_token_id=1)


def _sentencepiece(**changes: Any) -> dict[str, Any]:
    """As `SentencePieceTrainer` numbers them: unknown, begin, end, bytes, then merges best first, then characters."""
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens, _ = _trained(split, first, [])
    types = [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259)
    scores = [0.0] * 259 + [-1.0 * rank for rank in range(len(tokens) - 259)]
    values = {"model": "llama", "pre": None, "merges": None, "tokens": tokens, "scores": scores, "token_type": types}
    ids = {"eos_token_id": 2, "bos_token_id": 1, "unknown_token_id": 0, "padding_token_id": 2}
    return _keys(**values | ids | changes)


KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "llama-bpe": lambda: _byte_level("llama-bpe"),
    "qwen2": lambda: _byte_level("qwen2"),
    "gpt-2": lambda: _byte_level("gpt-2"),
    "sentencepiece": _sentencepiece,
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tokenizer, Any]:
    """The tokenizer as transformers loads it from the file, ours, and transformers' of the folder that we write."""
    from transformers import AutoTokenizer

    from tests.models.conftest import SMALL, _write_gguf
    from tunix_rt.models.initialise import write_fresh

    root = tmp_path_factory.mktemp("gguf")
    write_fresh(root / "model", SMALL, vocab_size=600, seed=0, pad_id=0, end_id=1)
    file = _write_gguf(root / "small.gguf", root / "model", **KINDS[request.param]())
    gguf.convert(file, root / "out")
    theirs = AutoTokenizer.from_pretrained(root, gguf_file=file.name)
    return theirs, Tokenizer.load(root / "out"), AutoTokenizer.from_pretrained(root / "out")


def _same(pair: tuple[Any, Tokenizer, Any], text: str) -> None:
    theirs, ours, written = pair
    expected = theirs(text, add_special_tokens=False).input_ids
    assert ours.ids(text) == written(text, add_special_tokens=False).input_ids == expected
    assert ours.decode(expected) == theirs.decode(
        expected, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_those_of_transformers(pair: tuple[Any, Tokenizer, Any], text: str) -> None:
    _same(pair, text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HOSTILE)
def test_ids_of_any_text_equal_those_of_transformers(pair: tuple[Any, Tokenizer, Any], text: str) -> None:
    _same(pair, text)


def test_every_kind_of_splits_is_compared_or_is_an_alias() -> None:
    compared = {id(SPLITS[name]) for name in KINDS if name in SPLITS}
    others = [name for name, splits in SPLITS.items() if id(splits) not in compared]
    assert others == ["smollm"], "which tests/models/test_gguf.py compares on SmolLM2's own file"


@pytest.mark.parametrize(
    ("kind", "declared", "begin"),
    [
        ("llama-bpe", None, "<s>"),
        ("llama-bpe", False, ""),
        ("qwen2", None, ""),
        ("qwen2", True, "<s>"),
        ("sentencepiece", None, "<s>"),
        ("sentencepiece", False, ""),
    ],
)
def test_a_text_begins_as_llama_cpp_begins_it(
    kind: str,
    declared: bool | None,
    begin: str,
    make_folder: Callable[..., Path],
    write_gguf: WriteGguf,
    tmp_path: Path,
) -> None:
    keys = KINDS[kind]() | _keys(add_bos_token=declared)
    gguf.convert(write_gguf(tmp_path / "small.gguf", make_folder(), **keys), tmp_path / "out")
    assert Tokenizer.load(tmp_path / "out").begin_token == begin


def test_of_qwen2_the_folder_is_read_as_transformers_reads_it(write_gguf: WriteGguf, tmp_path: Path) -> None:
    """It composes characters, whatever is written there."""
    from transformers import AutoTokenizer

    whole = {"use_sliding_window": False, "head_dim": 16, "hidden_size": 48, "num_attention_heads": 3}
    case = replace(CASES["qwen2"], changes=CASES["qwen2"].changes | whole | {"num_key_value_heads": 1}, save={})
    folder, out = write(tmp_path / "model", case), tmp_path / "out"
    gguf.convert(write_gguf(tmp_path / "small.gguf", folder, family="qwen2", **KINDS["qwen2"]()), out)
    ours, theirs = Tokenizer.load(out), AutoTokenizer.from_pretrained(out)
    assert [ours.ids(text) for text in (*TEXTS, "e\u0301")] == [theirs(text).input_ids for text in (*TEXTS, "e\u0301")]
    assert ours.ids("e\u0301") == ours.ids("\u00e9")


def test_a_merge_of_what_is_no_token_is_named(
    make_folder: Callable[..., Path], write_gguf: WriteGguf, tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "small.gguf", make_folder(), tokenizer__ggml__merges=["a b", "a zz"])
    with pytest.raises(
        ModelError, match=r"small\.gguf: tokenizer\.ggml\.merges: 'zz' is not among tokenizer\.ggml\.tok"
    ):
        gguf.convert(file, tmp_path / "out")


def test_sentencepiece_without_a_first_space_and_with_merges(
    make_folder: Callable[..., Path], write_gguf: WriteGguf, tmp_path: Path
) -> None:
    keys = _sentencepiece(add_space_prefix=False, scores=None, merges=["a b", "ab e"])
    tokens = keys["tokenizer__ggml__tokens"]
    tokens += [token for token in ("a", "b", "e", "ab", "abe") if token not in tokens]
    keys |= _keys(token_type=[2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259))
    gguf.convert(write_gguf(tmp_path / "small.gguf", make_folder(), **keys), tmp_path / "out")
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert tokenizer.ids("abe\x07") == [tokens.index("abe"), tokens.index("<0x07>")]
    assert tokenizer.decode(tokenizer.ids(" abe\x07 ")) == " abe\x07 "
