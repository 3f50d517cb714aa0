"""Adds tokens to a model folder: extends tokenizer.json and grows the tensors indexed by the vocabulary.

Which tensors these are follows from the shapes that the family declares. Uses numpy only, so every backend starts
from the same numbers.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunix_rt.errors import ModelError
from tunix_rt.files import digest, write_json, write_text
from tunix_rt.models.content import folder_digest
from tunix_rt.models.families.registry import tensor_shapes
from tunix_rt.models.folder import (
    GENERATION,
    Float32,
    Weights,
    config_to_save,
    copy_tokenizer,
    read_architecture,
    read_object,
    read_stop_ids,
    read_weights,
    write_generation_config,
    write_model,
)
from tunix_rt.models.sources import made_once
from tunix_rt.models.tokenizer import Tokenizer, add_tokens
from tunix_rt.models.tokenizer_class import DECODER

if TYPE_CHECKING:
    import tokenizers

VERSION = 2


def with_tokens(
    folder: Path, added: Sequence[str], cache: Path, weights: bool = True, stops: Sequence[str] = ()
) -> Path:
    """The folder itself if it has the tokens `added`, a row for each, and stops at `stops`; else an extended copy.

    Rows that a model has beyond its tokenizer are used as they are. Without `weights` the copy has none, and `cache`
    may be any folder of the caller. Raises ModelError, also if a token that is not among `added` has no row.
    """
    tokenizer = Tokenizer.load(folder)
    missing = [text for text in added if text not in tokenizer.added_tokens]
    further = [text for text in stops if text not in tokenizer.end_tokens or _stop_id(folder, text) is None]
    beyond = tokenizer.beyond(read_architecture(folder).vocab_size)
    _refuse_foreign(folder, tokenizer, {text: index for text, index in beyond.items() if text not in added})
    asked = [text for text in added if text in beyond]
    if not missing and not further and not asked:
        return folder
    named = {"stops": further, "rows": asked}
    made = {"model": folder_digest(folder), "added": missing, "version": VERSION}
    target = cache / f"{folder.name}-tokens-{digest(made | {key: value for key, value in named.items() if value})[:12]}"
    grows = bool(missing or asked)
    return made_once(target, lambda part: _extend(folder, missing, part, weights, further, grows))


def _refuse_foreign(folder: Path, tokenizer: Tokenizer, beyond: Mapping[str, int]) -> None:
    """Raise ModelError if a text could need one of the tokens `beyond` the model's rows.

    A special token that nothing puts into a text may be there: all of Gemma 3 share one tokenizer, whose token for
    images has no row in the models without images (vocab_size 262144, its id 262144).
    """
    begin = map(tokenizer.piece, tokenizer.ids(tokenizer.begin_token))
    ends = {*tokenizer.end_tokens, *begin, tokenizer.piece(tokenizer.pad_id)}
    wanted = [text for text in sorted(beyond, key=beyond.__getitem__) if text not in tokenizer.special_tokens - ends]
    if wanted:
        shown = ", ".join(map(repr, wanted[:5])) + (f" and {len(wanted) - 5} more" if len(wanted) > 5 else "")
        new = [text for text in wanted if text in tokenizer.added_tokens][:5]
        learn = f", or, to learn new tokens with all weights, name them: tokenizer.added_tokens={new}" if new else ""
        raise ModelError(
            f"{folder}: tokenizer.json has {tokenizer.vocab_size} tokens, but by config.json (vocab_size) the model "
            f"has {read_architecture(folder).vocab_size} rows of embeddings, none for {shown}; put the model's own "
            f"tokenizer there{learn}"
        )


def _stop_id(folder: Path, text: str) -> int | None:
    """The id of a token at which generation stops already."""
    from tokenizers import Tokenizer as Inner

    found = Inner.from_file(str(folder / "tokenizer.json")).token_to_id(text)
    return found if found in read_stop_ids(folder) else None


def _extend(source: Path, added: Sequence[str], target: Path, weights: bool, stops: Sequence[str], grows: bool) -> None:
    from tokenizers import Tokenizer as Inner

    copy_tokenizer(source, target)
    inner = Inner.from_file(str(source / "tokenizer.json"))
    add_tokens(inner, added)
    write_text(target / "tokenizer.json", inner.to_str(pretty=True))
    _declare(target, inner, added)
    if (source / GENERATION).is_file():
        shutil.copyfile(source / GENERATION, target / GENERATION)
    ids = {text: inner.token_to_id(text) for text in stops}
    for text, found in ids.items():
        if found is None:
            there = f"{text!r} is not a token of {source}"
            raise ModelError(f"model.stop_tokens: {there}; tokenizer.added_tokens adds tokens")
    if ids:
        known = (*read_stop_ids(source), *(found for found in ids.values() if found is not None))
        write_generation_config(target, known, Tokenizer.load(source).pad_id)
    rows = read_architecture(source).vocab_size
    rows = max(rows, Tokenizer.load(target).vocab_size) if grows else rows
    config = config_to_save(source) | {"vocab_size": rows}
    write_model(target, config, grown(source, rows) if weights else None)


def _declare(target: Path, inner: tokenizers.Tokenizer, added: Sequence[str]) -> None:
    """Name added tokens in tokenizer_config.json, where some classes of `transformers` look for them alone."""
    config = read_object(target / "tokenizer_config.json", optional=True)
    if DECODER not in config:
        return
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized", "special"), False)
    entries = {str(inner.token_to_id(text)): {"content": text} | flags for text in added}
    write_json(target / "tokenizer_config.json", config | {DECODER: config[DECODER] | entries})


def grown(folder: Path, vocab_size: int) -> Weights:
    """The folder's weights with `vocab_size` rows: new rows are the mean of the existing ones.

    So a new token starts as an average token, and the other tokens' logits hardly move (Hewitt 2021,
    nlp.stanford.edu/~johnhew/vocab-expansion.html; `mean_resizing` of `transformers` adds noise of scale 1e-9).
    Raises ModelError if the model has more rows than that.
    """
    architecture = read_architecture(folder)
    if vocab_size < architecture.vocab_size:
        raise ModelError(f"{folder}: {architecture.vocab_size} rows of embeddings cannot shrink to {vocab_size}")
    shapes = tensor_shapes(replace(architecture, vocab_size=vocab_size))
    return {name: _grown(tensor, shapes[name]) for name, tensor in read_weights(folder).items()}


def _grown(tensor: Float32, shape: tuple[int, ...]) -> Float32:
    """`tensor` extended to `shape`: its mean is appended along each axis that is longer in `shape`."""
    for axis, size in enumerate(shape):
        if size > tensor.shape[axis]:
            mean = tensor.mean(axis=axis, dtype=np.float64, keepdims=True).astype(np.float32)
            tensor = np.concatenate([tensor, np.repeat(mean, size - tensor.shape[axis], axis=axis)], axis=axis)
    return tensor
