"""The tokens of a text say the text: what the tokenizer's normaliser rewrites is said, what gets lost is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Inner

from tests.conftest import config_of
from tunix_rt.batches.encode import encode
from tunix_rt.batches.encoder import Encoder, Encoding
from tunix_rt.config.format import ChatFormat, PlainFormat
from tunix_rt.errors import DataError
from tunix_rt.models.folder import write_generation_config
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.tokenizer import Tokenizer, train_bpe, train_char, write_tokenizer
from tunix_rt.traces.format import formatter
from tunix_rt.traces.trace import Message, Trace

pytestmark = pytest.mark.framework  # chat templates are run by transformers
Change = Callable[[Inner], None]
TEMPLATE = (
    "{%- for m in messages -%}{{ '<|' + m.role + '|>\\n' + m.content + '<|over|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}"
)
CHAT = ChatFormat(kind="chat", system=None, variables={}, date=None, step_end="\n", answer_start="", reader="auto")
PLAIN = PlainFormat(kind="plain", prompt_end="", step_end="\n", answer_start="", reader="auto")


def changed(folder: Path, change: Change, end: str = "<end>") -> Tokenizer:
    """A byte-level tokenizer after a change."""
    train_bpe(["the quick brown fox"], 300, folder)
    inner = Inner.from_file(str(folder / "tokenizer.json"))
    change(inner)
    write_tokenizer(folder, inner, {"eos_token": end, "pad_token": "<pad>"})
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    write_generation_config(folder, (inner.token_to_id(end),), 0)
    return Tokenizer.load(folder)


def normalised(by: normalizers.Normalizer) -> Change:
    return lambda inner: setattr(inner, "normalizer", by)


def taking(**sides: bool) -> Change:
    """Phi-3's tokens of turns take the white space behind them with it."""

    def change(inner: Inner) -> None:
        names = ("<|user|>", "<|assistant|>", "<|over|>")
        added = [AddedToken(name, special=True, normalized=False, **sides) for name in names]
        inner.add_special_tokens(added)

    return change


def sentencepiece(folder: Path, normalizer: normalizers.Normalizer | None, scheme: str | None) -> Tokenizer:
    """Llama 2's (a normaliser writes the blank in front), and the newer kind (a pre-tokenizer does)."""
    letters = ["<unk>", "<end>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcé"]
    inner = Inner(models.BPE({text: i for i, text in enumerate(letters)}, [], unk_token="<unk>", byte_fallback=True))
    if normalizer is not None:
        inner.normalizer = normalizer
    if scheme is not None:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens(["<end>"])
    write_tokenizer(folder, inner, {"eos_token": "<end>", "unk_token": "<unk>"})
    return Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("by", "text", "how"),
    [
        (normalizers.NFC(), "e\u0301 and A", "Unicode NFC"),
        (normalizers.NFKC(), "ﬁ", "Unicode NFKC"),
        (normalizers.Lowercase(), "The Fox", "lower case"),
        (normalizers.Replace("the", "a"), "the fox", "its own normaliser"),
        (normalizers.NFC(), "é the\n  fox ▁", ""),
    ],
)
def test_what_the_normaliser_rewrites_is_said(tmp_path: Path, by: normalizers.Normalizer, text: str, how: str) -> None:
    tokenizer = changed(tmp_path, normalised(by))
    assert tokenizer.encode(f"{text}<end>").rewritten == how


LEGACY = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


@pytest.mark.parametrize(("normalizer", "scheme"), [(LEGACY, None), (None, "first"), (None, "always"), (None, "never")])
def test_the_blank_that_sentencepiece_puts_in_front_is_no_change_of_the_text(
    tmp_path: Path, normalizer: normalizers.Normalizer | None, scheme: str | None
) -> None:
    tokenizer = sentencepiece(tmp_path, normalizer, scheme)
    for text in ("ab", " ab", "  a  b ", "a<end>b<end> c<end>", "é\n日😀<end>", "<end>"):
        assert tokenizer.encode(text).rewritten == "", text
    assert tokenizer.encode("a▁b<end>").rewritten == "▁ is read as a blank"


def test_text_that_becomes_unknown_in_its_surroundings_is_lost(tmp_path: Path) -> None:
    """Each character alone is in the vocabulary, the word is not: BERT's kind of model."""
    inner = Inner(models.WordPiece({"[UNK]": 0, "a": 1, "b": 2, "##a": 3, " ": 4, "<end>": 5}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(" "), "isolated")
    inner.decoder = decoders.Fuse()
    write_tokenizer(tmp_path, inner, {"eos_token": "<end>", "unk_token": "[UNK]"})
    with pytest.raises(DataError, match=r"the tokenizer loses text: 'ab' would be read as '\[UNK\]'"):
        Tokenizer.load(tmp_path).encode("a ab")


def test_white_space_that_the_splitting_drops_is_lost(tmp_path: Path) -> None:
    train_char([], "ab \n", tmp_path)
    inner = Inner.from_file(str(tmp_path / "tokenizer.json"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n"), "removed")
    write_tokenizer(tmp_path, inner, {"eos_token": "<end>"})
    with pytest.raises(DataError, match="loses text"):
        Tokenizer.load(tmp_path).encode("a\na")


def said(prompt: str, completion: str) -> Trace:
    return Trace("t", prompt, (), "", {}, completion=Message("assistant", completion))


@pytest.mark.parametrize(
    ("sides", "kept", "lost"), [({"rstrip": True}, "fox \n", "\n  fox"), ({"lstrip": True}, "\n  fox", "fox \n")]
)
def test_white_space_that_a_token_takes_with_it_is_an_error_with_its_cause(
    tmp_path: Path, sides: dict[str, bool], kept: str, lost: str
) -> None:
    """The template's own white space may go, as in training: Phi-3's newline behind <|assistant|>."""
    tokenizer = changed(tmp_path, taking(**sides), "<|over|>")
    form = formatter(CHAT, tokenizer)
    encoded = encode(form.parts(said("the", kept)), tokenizer, config_of([]).dataset.loss_weights)
    learned = encoded.ids[encoded.weights > 0].tolist()
    assert tokenizer._inner.decode(learned, skip_special_tokens=False) == f"{kept}<|over|>"
    with pytest.raises(DataError, match=r"completion: the tokenizer's token '<\|.*\|>' takes the white space"):
        form.parts(said("the", lost))
    with pytest.raises(DataError, match=r"prompt: the tokenizer's token .*dataset\.strip=true"):
        form.prompt([Message("user", lost)])
    with pytest.raises(DataError, match=r"messages\[1\]: the tokenizer's token"):
        form.prompt([Message("user", "a"), Message("assistant", lost), Message("user", "b")])


def test_so_it_is_without_a_chat_template(tmp_path: Path) -> None:
    form = formatter(PLAIN, changed(tmp_path, taking(lstrip=True), "<|over|>"))
    with pytest.raises(DataError, match=r"completion: the tokenizer's token '<\|over\|>' takes the white space"):
        form.parts(said("the", "fox \n"))


def test_rewritten_texts_are_counted(tmp_path: Path) -> None:
    tokenizer = changed(tmp_path, normalised(normalizers.NFC()))
    source = config_of(["model=nano"]).model.source
    write_fresh(tmp_path, source, tokenizer.vocab_size, 0, 0, tokenizer.end_id, weights=False)  # type: ignore[arg-type]
    encoder = Encoder(Encoding(tmp_path, PLAIN, config_of([]).dataset, 99))
    assert encoder.encode(said("Q", "e\u0301"))[1] == ("texts rewritten by the tokenizer (Unicode NFC)",)
    assert encoder.encode(said("Q", "é"))[1] == ()
