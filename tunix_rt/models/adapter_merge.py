"""An adapter and its base as one model: what `peft` computes with the two, as weights.

Besides the matrices of layers, an adapter from `peft` may change the embeddings and the head (`target_modules`), hold
whole modules (`modules_to_save`), or the embeddings of a model with more tokens. Where the base's head is its embedding
matrix and the adapter changes one of them, the other stays as it is and the result is not tied, unless
`ensure_weight_tying` says so. (`merge_and_unload` of such a model, which adds both changes to the one matrix, gives
another model than was trained, and warns; peft 0.21.)
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tunix_rt.files import JsonObject
from tunix_rt.models.adapter import PREFIX, linear, merged, module_name, outside
from tunix_rt.models.adapter_folder import adapter_of, read_base, read_files
from tunix_rt.models.adapter_targets import exceptions
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.fields import Fields
from tunix_rt.models.families.names import HEAD, Tensor
from tunix_rt.models.families.registry import names_of, tensor_shapes
from tunix_rt.models.folder import (
    GENERATION,
    TOKENIZER,
    Weights,
    check_same,
    config_to_save,
    copy_tokenizer,
    read_architecture,
    read_weights,
    write_model,
)
from tunix_rt.models.wrapped import is_wrapped, take_out
from tunix_rt.terminal import warn

UNUSED = re.compile(r"\.(original_module|modules_to_save)\.")
"""What `peft` writes beside a module that it saves whole, if the vocabulary has grown, and does not read."""


def merge(folder: Path, base: Path, target: Path) -> None:
    """Write the merged model of an adapter and its base (float32) into `target`, with a tokenizer from either.

    Of a base that reads images too, the text part is merged. Of a base that was quantised in training the full weights
    are taken, as `peft` does, which is said. Raises ModelError: as `adapter_folder.read_adapter`, or modules that are
    missing or do not fit.
    """
    if is_wrapped(base):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as made:
            take_out(base, text := Path(made) / base.name)
            merge(folder, text, target)
        return
    if quantize := read_base(folder).quantize:
        warn(
            f"the adapter {folder} was trained on a base in {quantize}; it is merged with the base's full weights, so "
            "the model's answers differ a little from those of the run"
        )
    write_model(target, *_merged(folder, base))
    place = folder if (folder / TOKENIZER).is_file() else base
    if (place / TOKENIZER).is_file():
        copy_tokenizer(place, target)
    generation = next((one / GENERATION for one in (place, base) if (one / GENERATION).is_file()), None)
    if generation is not None:
        shutil.copyfile(generation, target / GENERATION)


def _merged(folder: Path, base: Path) -> tuple[JsonObject, Weights]:
    """Config and weights of the merged model."""
    architecture, files = read_architecture(base), read_files(folder)
    fields, tensors = files.fields, files.weights
    low = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    whole = {name: tensor for name, tensor in tensors.items() if name not in low and not UNUSED.search(name)}
    saved = {_own(name): tensor for name, tensor in whole.items()}
    embedding, weights = names_of(architecture).whole["embedding"], read_weights(base)
    shared = architecture.tie_embeddings and bool(fields.config.get("ensure_weight_tying"))
    if architecture.tie_embeddings:
        weights[HEAD] = weights[embedding]
    _check_saved(folder, fields, saved, weights)
    weights |= saved
    now = replace(architecture, vocab_size=len(weights[embedding]))
    among = (*linear(now), *(module for module in outside(now) if not shared or module.name != HEAD))
    if shared:  # the file repeats the embeddings' A and B as those of the head
        _check_alike(fields, tuple(map(files.there, outside(now))))
        low = {name: tensor for name, tensor in low.items() if not name.startswith(f"{PREFIX}lm_head.")}
    weights = merged(weights, adapter_of(files, low, among), low)
    tied = architecture.tie_embeddings and (shared or np.array_equal(weights[HEAD], weights[embedding]))
    if tied:
        del weights[HEAD]
    return _config(folder, base, replace(now, tie_embeddings=tied), weights), weights


def _check_alike(fields: Fields, modules: tuple[Tensor, ...]) -> None:
    """Refuse a tied head with another scaling than the embeddings: the result is not tied, which is not computed."""
    own = {name: size for name, *size in exceptions(fields, modules)}
    if len({str(own.get(module_name(module))) for module in modules if module.canonical_name != "positions"}) > 1:
        raise fields.refuse("ensure_weight_tying", "with another rank or alpha for the head than for the embeddings")


def _own(name: str) -> str:
    """The model's name of a tensor that is saved whole; `base_layer` is one under A and B."""
    return name.removeprefix(PREFIX).replace(".base_layer.", ".")


def _check_saved(folder: Path, fields: Fields, saved: Weights, weights: Weights) -> None:
    """Raise ModelError if a tensor of `modules_to_save` is missing in the file, or one there is not the model's."""
    entries = fields.config.get("modules_to_save") or []
    if not isinstance(entries, list) or not all(isinstance(item, str) for item in entries):
        raise fields.refuse("modules_to_save", f"{entries!r}, expected a list of names")
    wanted = {name for name in weights if any(place.endswith(tuple(entries)) for place in _modules(name))}
    found = {name: "there" for name in saved if name not in weights or name in wanted}
    expected = dict.fromkeys(wanted, "there")
    check_same(f"{folder}: the whole tensors do not fit modules_to_save and the model:", found, expected)


def _modules(tensor: str) -> Iterator[str]:
    """The module of a tensor and those around it: `peft` compares the ends of their names."""
    name = tensor
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _config(folder: Path, base: Path, architecture: Architecture, weights: Weights) -> JsonObject:
    """The base's config.json with the vocabulary and the tying of the merged model. Raises ModelError: other shapes."""
    found = {name: tensor.shape for name, tensor in weights.items()}
    check_same(f"{folder}: the merged weights do not fit the model:", found, tensor_shapes(architecture))
    before, config = read_architecture(base), config_to_save(base)
    if architecture.vocab_size != before.vocab_size:
        config["vocab_size"] = architecture.vocab_size
    if architecture.tie_embeddings != before.tie_embeddings:
        config["tie_word_embeddings"] = architecture.tie_embeddings
    return config
