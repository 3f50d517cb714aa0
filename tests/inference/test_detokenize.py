"""Text of tokens one after the other: nothing that is shown changes later, and all of it is what `decode` says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.inference.detokenize import Detokenizer
from tunix_rt.models.token_bytes import bytes_of
from tunix_rt.models.tokenizer import Tokenizer, train_bpe, train_char, write_tokenizer

TEXTS = ["Käse — 3 × 4 = 12", "👩‍👧 ¿qué?", "the answer is 42, the answer", "日本語 e\u0301"]


def sentencepiece_like(folder: Path) -> None:
    """As Llama 2's: `▁` for spaces, bytes for what the vocabulary lacks, a leading space that decoding drops."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, normalizers

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    tokens += ["▁", "▁the", "▁a", "n", "s", "w", "e", "r", "▁4", "2", "é", "▁▁"]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    inner = Inner(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    write_tokenizer(folder, inner, {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"})


def made(folder: Path, kind: str) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    if kind == "sentencepiece":
        sentencepiece_like(folder)
    elif kind == "bpe":
        train_bpe(TEXTS, 300, folder, ["<think>"])
    else:
        train_char(TEXTS, None, folder)
    (folder / "config.json").write_text(json.dumps({}))
    return Tokenizer.load(folder)


@pytest.fixture(scope="module", params=["bpe", "char", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return made(tmp_path_factory.mktemp(request.param), request.param)


@given(data=st.data())
def test_any_tokens_give_in_pieces_what_decoding_gives_at_once(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """Tokens at random: characters that never become whole, special ones, spaces at the beginning."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20))
    special = data.draw(st.booleans())
    spelling, shown, seen = Detokenizer(tokenizer, special), "", []
    for place, token in enumerate(ids, 1):
        if (group := spelling.add(token)) is not None:
            shown += group.text
            seen += group.ids
            assert seen == ids[:place] and tokenizer.decode(ids, special).startswith(shown)
    if (group := spelling.end()) is not None:
        shown += group.text
        seen += group.ids
    assert seen == ids and shown == tokenizer.decode(ids, special)


@given(st.text("aé日👩‍ \n\N{COMBINING ACUTE ACCENT}", max_size=12))
def test_the_bytes_of_tokens_are_those_of_the_text(text: str) -> None:
    """A byte-level BPE spells every text; each token's bytes, joined, are its own."""
    tokenizer = BPE[0]
    ids = tokenizer.ids(text)
    spelling = Detokenizer(tokenizer)
    groups = [group for group in [*map(spelling.add, ids), spelling.end()] if group is not None]
    assert b"".join(own for group in groups for own in group.bytes) == text.encode()


@pytest.fixture(scope="module", autouse=True)
def _bpe(tmp_path_factory: pytest.TempPathFactory) -> None:
    BPE.append(made(tmp_path_factory.mktemp("bytes"), "bpe"))


BPE: list[Tokenizer] = []
"""For the test above: hypothesis would not let it take a fixture of its own."""


def test_a_space_and_a_byte_of_sentencepiece(tmp_path: Path) -> None:
    tokenizer = made(tmp_path / "llama", "sentencepiece")
    of = {tokenizer.spelled(token): token for token in range(tokenizer.vocab_size)}
    assert [bytes_of(tokenizer, of[name]) for name in ("▁the", "<0xC3>", "é")] == [b" the", b"\xc3", "é".encode()]
    spelling = Detokenizer(tokenizer)
    written = [spelling.add(of[name]) for name in ("▁the", "<0xC3>", "<0xA9>", "▁a")]
    assert [group and group.text for group in written] == ["the", None, None, "é a"]
