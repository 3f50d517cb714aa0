"""The tokenizer in the metadata of a GGUF file, rebuilt as `transformers` (5.22, integrations/gguf) rebuilds it.

Two kinds: byte-level BPE, whose text is split by the rules that `tokenizer.ggml.pre` names, and sentencepiece's BPE,
whose merges follow from the scores. As in the file, and as there, text is not normalised, while Qwen's own
tokenizer.json composes characters (NFC) first; of Qwen 2 `transformers` reads a folder in no other way, so there it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.gguf_keys import NAMED_TEMPLATE
from tunix_rt.models.splits import LLAMA3, QWEN2, byte_level_by_pattern, byte_level_with_single_digits
from tunix_rt.models.tokenizer import write_tokenizer
from tunix_rt.models.tokenizer_class import forced_splits

if TYPE_CHECKING:
    import tokenizers
    from tokenizers.pre_tokenizers import PreTokenizer

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
"""`tokenizer.ggml.token_type` (llama.cpp, include/llama.h, llama_token_type)."""
BLANK = "▁"
"""Sentencepiece's space."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The file's key-value pairs; a missing key is an error that names file and key."""

    file: Path
    fields: Mapping[str, Any]

    def optional(self, key: str, prefix: str = "") -> Any:
        field = self.fields.get(prefix + key)
        return None if field is None else field.contents()

    def required(self, key: str, supported: tuple[str, ...] | None = None, prefix: str = "") -> Any:
        key = prefix + key
        value = self.optional(key)
        if value is None:
            raise ModelError(f"{self.file}: {key}: missing")
        if supported is not None and value not in supported:
            raise ModelError(f"{self.file}: {key} {value!r} is not supported; supported: {', '.join(supported)}")
        return value


@dataclass(frozen=True, slots=True)
class _Splits:
    """How a byte-level BPE splits text before its merges, and what goes with it in llama.cpp (llama-vocab.cpp)."""

    split: Callable[[], PreTokenizer]
    whole_words: bool = False
    """A piece that is in the vocabulary is one token, whatever the merges (`ignore_merges`)."""
    begins: bool = False
    """A text begins with `bos` unless `add_bos_token` says otherwise."""


def _by_pattern(pattern: str) -> Callable[[], PreTokenizer]:
    return partial(byte_level_by_pattern, pattern)


def _gpt2() -> PreTokenizer:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False)


_LLAMA3_SPLITS = _Splits(_by_pattern(LLAMA3), whole_words=True, begins=True)
_QWEN2_SPLITS = _Splits(_by_pattern(QWEN2))
SPLITS = {
    "deepseek-r1-qwen": _QWEN2_SPLITS,
    "gpt-2": _Splits(_gpt2),
    "llama-bpe": _LLAMA3_SPLITS,
    "llama-v3": _LLAMA3_SPLITS,
    "llama3": _LLAMA3_SPLITS,
    "qwen2": _QWEN2_SPLITS,
    "smollm": _Splits(byte_level_with_single_digits),
}
"""`tokenizer.ggml.pre` → its splits."""


def write_gguf_tokenizer(metadata: Metadata, special: dict[str, int], max_positions: int, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json. `special`: ids of `eos`, `padding` and others of their kind.

    Raises ModelError: a kind of tokenizer that is not supported.
    """
    tokens = metadata.required("tokenizer.ggml.tokens")
    settings: JsonObject = {"model_max_length": max_positions}
    for name, called in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        if name in special:
            settings[f"{called}_token"] = tokens[special[name]]
    if (template := _template(metadata)) is not None:
        settings["chat_template"] = template
    inner, begins = BUILDERS[metadata.required("tokenizer.ggml.model", tuple(BUILDERS))](metadata, tokens)
    _add_tokens(inner, tokens, metadata.required("tokenizer.ggml.token_type"))
    declared = metadata.optional("tokenizer.ggml.add_bos_token")
    if declared or (declared is None and begins and "bos" in special):
        number = metadata.required("tokenizer.ggml.bos_token_id")
        _begin_with(inner, tokens[number], number)
    write_tokenizer(folder, inner, settings)


def _template(metadata: Metadata) -> str | list[JsonObject] | None:
    """The chat template, or the named ones as tokenizer_config.json lists them."""
    default = metadata.optional("tokenizer.chat_template")
    keys = [key for key in metadata.fields if key.startswith(NAMED_TEMPLATE)]
    if not keys:
        return None if default is None else str(default)
    named = {"default": default} | {key.removeprefix(NAMED_TEMPLATE): metadata.optional(key) for key in keys}
    return [{"name": name, "template": text} for name, text in named.items() if text is not None]


def _add_tokens(inner: tokenizers.Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Control tokens become special, the user's own become one token wherever they occur."""
    from tokenizers import AddedToken

    for kinds, special in (((UNKNOWN, CONTROL), True), ((USER_DEFINED,), False)):
        found = [
            AddedToken(token, normalized=False) for token, kind in zip(tokens, types, strict=True) if kind in kinds
        ]
        (inner.add_special_tokens if special else inner.add_tokens)(found)


def _begin_with(inner: tokenizers.Tokenizer, token: str, number: int) -> None:
    from tokenizers import processors

    inner.post_processor = processors.TemplateProcessing(
        single=[token, "$A"], pair=[token, "$A", token, "$B:1"], special_tokens=[(token, number)]
    )


def _byte_level(metadata: Metadata, tokens: list[str]) -> tuple[tokenizers.Tokenizer, bool]:
    from tokenizers import Tokenizer, decoders, models

    splits = SPLITS[metadata.required("tokenizer.ggml.pre", tuple(SPLITS))]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = _merges(metadata, vocabulary)
    inner = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=splits.whole_words))
    forced = forced_splits(metadata.required("general.architecture"))
    inner.normalizer, inner.pre_tokenizer = forced or (None, splits.split())
    inner.decoder = decoders.ByteLevel()
    return inner, splits.begins


def _merges(metadata: Metadata, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    pairs = [merge.split(" ") for merge in metadata.required("tokenizer.ggml.merges")]
    if strange := next((pair for pair in pairs if len(pair) != 2), None):
        raise ModelError(f"{metadata.file}: tokenizer.ggml.merges: {' '.join(strange)!r} is not a pair of tokens")
    unknown = (token for left, right in pairs for token in (left, right, left + right) if token not in vocabulary)
    if (token := next(unknown, None)) is not None:
        raise ModelError(f"{metadata.file}: tokenizer.ggml.merges: {token!r} is not among tokenizer.ggml.tokens")
    return [(left, right) for left, right in pairs]


def _sentencepiece(metadata: Metadata, tokens: list[str]) -> tuple[tokenizers.Tokenizer, bool]:
    """Spaces are written as BLANK, one is put before a text, and an unknown character becomes its bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: index for index, token in enumerate(tokens)}
    given = metadata.optional("tokenizer.ggml.merges") is not None
    scores = () if given else metadata.required("tokenizer.ggml.scores")
    merges = (
        _merges(metadata, vocabulary) if given else implied_merges(vocabulary, dict(zip(tokens, scores, strict=True)))
    )
    inner = Tokenizer(models.BPE(vocabulary, merges, fuse_unk=True, byte_fallback=True))
    prefixed = metadata.optional("tokenizer.ggml.add_space_prefix") is not False
    scheme = "first" if prefixed else "never"
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement=BLANK, prepend_scheme=scheme, split=False)
    steps = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*steps, *([decoders.Strip(content=" ", left=1)] if prefixed else [])])
    return inner, True


def implied_merges(vocabulary: Mapping[str, int], scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """The merges of a vocabulary, each token's in the order of its score (`generate_merges` in transformers)."""
    found: list[tuple[float, str, str]] = []
    for token, score in scores.items():
        cuts = [(token[:end], token[end:]) for end in range(1, len(token))]
        known = [(left, right) for left, right in cuts if left in vocabulary and right in vocabulary]
        known.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        found += [(score, left, right) for left, right in known]
    found.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [(left, right) for _, left, right in found]


BUILDERS = {"gpt2": _byte_level, "llama": _sentencepiece}
"""`tokenizer.ggml.model` → the function that builds it: (tokenizer, whether a text begins with `bos`)."""
