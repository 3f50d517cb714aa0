"""A tokenizer → the metadata of a GGUF file: the inverse of `gguf_tokenizer`.

Byte-level BPE is written as such, with the name that llama.cpp has for the way it splits a text. A vocabulary of
characters and sentencepiece's BPE are both `llama` there: a piece is merged if its score says so, and characters have
none. What llama.cpp would split in another way is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.chat_template import read_templates
from tunix_rt.models.folder import TOKENIZER, read_object, read_stop_ids
from tunix_rt.models.gguf_metadata import Keys
from tunix_rt.models.gguf_tokenizer import BLANK, CONTROL, SPLITS, UNKNOWN, USER_DEFINED, implied_merges
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.models.tokenizer_class import state_of

NORMAL, UNUSED, BYTE = 1, 5, 6
"""`tokenizer.ggml.token_type`, beside those of `gguf_tokenizer`."""
NAMED = ("gpt-2", "llama-bpe", "qwen2", "smollm")
"""The names of `SPLITS` that are written, the first that fits."""
STOPS = ("eos", "eot", "eom")
"""The names for tokens that end a turn, as many as a file can have."""
SINGLE_BYTE = re.compile("<0x[0-9A-F]{2}>")
"""A byte of what sentencepiece has no piece for."""
COMPOSED = {"type": "NFC"}
"""The normaliser of Qwen's tokenizers, which llama.cpp leaves out."""


def vocabulary_keys(folder: Path, rows: int) -> Keys:
    """The `tokenizer.` keys for the tokenizer of a model folder; `rows`: of its embeddings.

    Raises ModelError naming what llama.cpp would do otherwise.
    """
    from tokenizers import Tokenizer as Inner

    inner = Inner.from_file(str(folder / TOKENIZER))
    tokenizer = Tokenizer(folder, inner)  # puts into it what the class of the folder builds
    state = json.loads(inner.to_str())
    model = state["model"]
    tokens, types = _tokens(folder, state, rows)
    match model["type"]:
        case "WordLevel":
            keys = _characters(folder, state, tokens, types)
        case "BPE" if model.get("byte_fallback"):
            keys = _sentencepiece(folder, state, tokens)
            types = [_kind_of_piece(token, kind, model) for token, kind in zip(tokens, types, strict=True)]
        case "BPE":
            keys = _byte_level(folder, state)
        case kind:
            raise ModelError(f"{folder}: GGUF: a tokenizer of the kind {kind} is not written, only BPE and characters")
    unknown = model["vocab"].get(model.get("unk_token") or "")
    keys |= {"tokens": tokens, "token_type": types} | _special(folder, tokenizer, tokens, unknown)
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def template_of(folder: Path) -> str | list[dict[str, str]] | None:
    """The chat template as `GGUFWriter.add_chat_template` takes it: one, or several by name."""
    found = read_templates(folder, read_object(folder / "tokenizer_config.json", optional=True))
    if set(found) <= {"default"}:
        return found.get("default")
    return [{"name": name, "template": text} for name, text in found.items()]


def _tokens(folder: Path, state: JsonObject, rows: int) -> tuple[list[str], list[int]]:
    """The text and kind of each token by its id; rows of embeddings without a token get one that is never used."""
    vocabulary, added = dict(state["model"]["vocab"]), {token["content"]: token for token in state["added_tokens"]}
    vocabulary |= {text: token["id"] for text, token in added.items()}
    texts = {index: text for text, index in vocabulary.items()}
    if beyond := sorted(index for index in texts if index >= rows):
        raise ModelError(
            f"{folder}: GGUF: the model has no row of embeddings for {texts[beyond[0]]!r} and {len(beyond) - 1} more "
            "tokens, and a file has one for each"
        )
    kinds = {text: CONTROL if token["special"] else USER_DEFINED for text, token in added.items()}
    tokens = [texts.get(index, f"[PAD{index}]") for index in range(rows)]
    types = [kinds.get(text, NORMAL) if index in texts else UNUSED for index, text in enumerate(tokens)]
    return tokens, types


def _special(folder: Path, tokenizer: Tokenizer, tokens: list[str], unknown: int | None) -> Keys:
    """The ids of special tokens, and whether a text begins with one."""
    stops = tuple(dict.fromkeys((tokenizer.end_id, *read_stop_ids(folder))))
    if len(stops) > len(STOPS):
        raise ModelError(
            f"{folder}: GGUF: {len(stops)} tokens end a completion, a file can name {len(STOPS)} "
            f"({', '.join(STOPS)}); leave some out of eos_token_id in generation_config.json"
        )
    ids: dict[str, int | None] = dict(zip(STOPS, stops, strict=False))
    begin = tokens.index(tokenizer.begin_token) if tokenizer.begin_token in tokens else None
    if tokenizer.begin_token and begin is None:
        raise ModelError(f"{folder}: GGUF: {tokenizer.begin_token!r}, which begins a text, is not one token")
    ids |= {"bos": tokenizer.begin_id if begin is None else begin, "padding": tokenizer.pad_id, "unknown": unknown}
    found: Keys = {f"{name}_token_id": value for name, value in ids.items() if value is not None}
    return found | {"add_bos_token": begin is not None}


def _byte_level(folder: Path, state: JsonObject) -> Keys:
    normalizer, splits = state["normalizer"], state["pre_tokenizer"]
    whole = bool(state["model"].get("ignore_merges"))
    name = next((name for name in NAMED if _splits_as(name, splits, whole)), None)
    if name is None or (normalizer is not None and (normalizer != COMPOSED or name != "qwen2")):
        raise ModelError(
            f"{folder}: GGUF: llama.cpp splits no text as this tokenizer.json does "
            f"(normalizer {json.dumps(normalizer)}, pre_tokenizer {json.dumps(splits)[:200]}); "
            f"known: {', '.join(NAMED)}"
        )
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]]
    if not merges:
        raise ModelError(f"{folder}: GGUF: the tokenizer merges nothing, and llama.cpp reads no such file")
    return {"model": "gpt2", "pre": name, "merges": merges}


def _splits_as(name: str, splits: Any, whole: bool) -> bool:
    known = SPLITS[name]
    return state_of(known.split()) == state_of(splits) and known.whole_words == whole


def _characters(folder: Path, state: JsonObject, tokens: list[str], types: Sequence[int]) -> Keys:
    """One token per character. Changes `tokens`: a space is written as sentencepiece does."""
    long = next((t for t, kind in zip(tokens, types, strict=True) if kind == NORMAL and len(t) != 1), None)
    if long is not None or state["normalizer"] is not None:
        raise ModelError(f"{folder}: GGUF: a vocabulary of words ({long!r}) is not written, only one of characters")
    if BLANK in tokens:
        raise ModelError(f"{folder}: GGUF: {BLANK!r} is a character of the vocabulary, and stands for a space there")
    tokens[:] = [{" ": BLANK}.get(text, text) for text in tokens]
    return {"model": "llama", "pre": "default", "scores": [0.0] * len(tokens), "add_space_prefix": False}


def _sentencepiece(folder: Path, state: JsonObject, tokens: Sequence[str]) -> Keys:
    """Scores under which the merges of the tokenizer are those of its vocabulary."""
    vocabulary = state["model"]["vocab"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in state["model"]["merges"]]
    ranks: dict[str, float] = {}
    for left, right in merges:
        ranks.setdefault(left + right, -float(len(ranks)))
    if implied_merges(vocabulary, ranks) != merges:
        raise ModelError(f"{folder}: GGUF: the tokenizer's merges do not follow from a score of each token")
    scores = [ranks.get(token, 0.0) for token in tokens]
    return {"model": "llama", "pre": "default", "scores": scores, "add_space_prefix": _prefixed(folder, state)}


def _kind_of_piece(token: str, kind: int, model: JsonObject) -> int:
    """The kind of a piece of sentencepiece, by which llama.cpp writes bytes as bytes."""
    if token == model.get("unk_token"):
        return UNKNOWN
    return BYTE if kind == NORMAL and SINGLE_BYTE.fullmatch(token) else kind


def _prefixed(folder: Path, state: JsonObject) -> bool:
    """Whether a space is put before a text; spaces are written as BLANK in one way or the other."""
    normalizer, splits = state["normalizer"], state["pre_tokenizer"]
    if normalizer is None and splits and splits.get("type") == "Metaspace" and splits.get("replacement") == BLANK:
        return str(splits.get("prepend_scheme")) != "never"
    if normalizer == {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}:
        return False
    raise ModelError(f"{folder}: GGUF: llama.cpp writes spaces otherwise than {json.dumps([normalizer, splits])}")
