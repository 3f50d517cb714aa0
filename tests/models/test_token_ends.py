"""Where tokens end in a text, against the definition: what decoding the tokens so far has in common with the whole."""

from __future__ import annotations

import time
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Inner
from tokenizers import decoders, models, pre_tokenizers

from tunix_rt.models.token_ends import token_ends
from tunix_rt.models.tokenizer import Tokenizer, train_bpe, train_char, write_tokenizer

TEXT = st.text(alphabet="abc 0\n=é日😀👩‍👧\u0301", max_size=30)
KINDS = ("bytes", "sentencepiece", "characters")


def sentencepiece(folder: Path) -> None:
    """Llama's kind: a blank in front that decoding drops, and bytes for what the vocabulary lacks."""
    letters = ["<unk>", "<end>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcé", "▁a", "bc"]
    merges = [("▁", "a"), ("b", "c")]
    vocabulary = {text: i for i, text in enumerate(letters)}
    inner = Inner(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens(["<end>"])
    write_tokenizer(folder, inner, {"eos_token": "<end>", "unk_token": "<unk>"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    train_bpe(["abc = 0 é 日本 😀\n"] * 3, 290, folders["bytes"])
    sentencepiece(folders["sentencepiece"])
    train_char([], "abc 0\n=é日😀👩‍👧\u0301", folders["characters"])
    return {kind: Tokenizer.load(folder) for kind, folder in folders.items()}


def defined(tokenizer: Tokenizer, ids: list[int], text: str) -> tuple[int, ...]:
    prefixes = [tokenizer.decode(ids[: size + 1]) for size in range(len(ids))]
    common = [max(n for n in range(len(text) + 1) if prefix.startswith(text[:n])) for prefix in prefixes]
    return tuple(accumulate(common, max))


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT)
def test_of_any_text_they_are_those_of_the_decoded_prefixes(made: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = made[kind]
    ids = [*tokenizer.ids(text), tokenizer.end_id]
    whole = tokenizer.decode(ids)
    assert token_ends(tokenizer, ids, whole) == defined(tokenizer, ids, whole)


@pytest.mark.parametrize("kind", KINDS)
@given(numbers=st.lists(st.integers(0, 10_000), max_size=40))
def test_of_any_tokens_too(made: dict[str, Tokenizer], kind: str, numbers: list[int]) -> None:
    """An untrained model writes bytes that are no characters. Of a row of those, Llama's decoder makes one `�` each
    once it has seen all of it, so that its prefixes say less."""
    tokenizer = made[kind]
    ids = [number % tokenizer.vocab_size for number in numbers]
    whole = tokenizer.decode(ids)
    ends = token_ends(tokenizer, ids, whole)
    if kind == "sentencepiece":
        assert sorted(ends) == [*ends] and len(ends) == len(ids) and max(ends, default=0) == len(whole)
    else:
        assert ends == defined(tokenizer, ids, whole)


def test_a_token_that_only_begins_a_character_adds_none(made: dict[str, Tokenizer]) -> None:
    tokenizer = made["sentencepiece"]
    ids = tokenizer.ids("b日é")
    assert len(ids) == 6 and token_ends(tokenizer, ids, "b日é") == (0, 1, 1, 1, 2, 3)
    assert token_ends(tokenizer, [], "") == ()


@pytest.mark.parametrize("kind", KINDS)
def test_the_time_grows_with_the_length(made: dict[str, Tokenizer], kind: str) -> None:
    """Prevents: every prefix decoded, which takes a minute for an answer of 30,000 tokens."""
    tokenizer = made[kind]
    ids = tokenizer.ids("a日😀=bc \n" * 3_000)
    began = time.process_time()
    assert token_ends(tokenizer, ids, tokenizer.decode(ids))[-1] == 24_000
    assert time.process_time() - began < 10
