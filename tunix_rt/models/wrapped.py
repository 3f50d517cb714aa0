"""The text part of a model that also reads images, written once as a model folder, and its share of an adapter.

Text alone passes through these models as through their text part. What an image would add is left out.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject, write_json
from tunix_rt.models.families.names import HEAD, LLAMA_NAMES
from tunix_rt.models.families.registry import read, tensor_shapes
from tunix_rt.models.folder import (
    CONFIG,
    GENERATION,
    TOKENIZER,
    Weights,
    check_same,
    copy_tokenizer,
    read_config,
    read_object,
    weight_files,
    write_model,
)
from tunix_rt.models.tensor_file import read_tensors, tensor_names
from tunix_rt.models.tokenizer_class import PLAIN_CLASS, REGISTERED
from tunix_rt.terminal import warn

VERSION = 2
"""Version of the conversion; increased when the same folder would give a different one."""
WRAPPERS = {
    "gemma3": ("gemma3_text", True),
    "llava": ("llama", False),
    "llava_next": ("llama", False),
    "mistral3": ("mistral", True),
}
"""Wrappers by `model_type`: the text part and `tie_word_embeddings` where config.json does not say, as in transformers
(5.22)."""
CARRIED = ("bos_token_id", "eos_token_id", "pad_token_id", "quantization_config", "auto_map")
"""Fields of a wrapper that hold for its text part: special tokens, and what the families refuse."""
CAP = "final_logit_softcapping"
"""A field of Gemma3ForCausalLM that Gemma3ForConditionalGeneration does not read (modeling_gemma3.py)."""
PREFIXES = {"language_model.model.": "model.", "model.language_model.": "model.", "language_model.lm_head.": "lm_head."}
"""What the text part's names begin with in a wrapper's files, and in its own; the second since transformers 4.52."""
IMAGES = ("vision_tower", "vision_model", "multi_modal_projector", "image_newline")
"""What other names begin with, behind an optional `model.`."""


@dataclass(frozen=True, slots=True)
class _Text:
    """The class of a text part in transformers (5.22), and its defaults: wrappers leave out what equals them."""

    architecture: str
    defaults: JsonObject


def _sizes(vocabulary: int, hidden: int, inner: int, layers: int, heads: int, groups: int, longest: int) -> JsonObject:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "max_position_embeddings": longest,
    }


TEXTS = {
    "gemma3_text": _Text("Gemma3ForCausalLM", _sizes(262208, 2304, 9216, 26, 8, 4, 131072) | {"head_dim": 256}),
    "llama": _Text("LlamaForCausalLM", _sizes(32000, 4096, 11008, 32, 32, 32, 2048)),
    "mistral": _Text("MistralForCausalLM", _sizes(32000, 4096, 14336, 32, 32, 8, 131072)),
    "qwen2": _Text("Qwen2ForCausalLM", _sizes(151936, 4096, 22016, 32, 32, 32, 32768)),
    "qwen3": _Text("Qwen3ForCausalLM", _sizes(151936, 4096, 22016, 32, 32, 32, 32768) | {"head_dim": 128}),
}
"""Text parts by `model_type`."""


def is_wrapped(folder: Path) -> bool:
    """Whether the folder holds a model with a text part inside that can be taken out."""
    config = read_config(folder)
    return config.get("model_type") in WRAPPERS and isinstance(config.get("text_config"), dict)


def take_out(folder: Path, target: Path) -> None:
    """Write the text part of a model folder into `target`: config, weights (float32), tokenizer. Says what is left out.

    Raises ModelError: another text part, tensors of an unknown kind, or what does not fit config.json.
    """
    found = {name: path for path in weight_files(folder) for name in tensor_names(path)}
    text, others = _split(folder, found)
    weights: Weights = {}
    for path in dict.fromkeys(found.values()):
        weights |= {text[name]: tensor for name, tensor in read_tensors(path, keep=text.__contains__).items()}
    config = _config(folder, weights)
    if config["tie_word_embeddings"]:
        weights.pop(HEAD, None)
    expected = tensor_shapes(read(config, str(folder / CONFIG)))
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    check_same(f"{folder}: the weights do not fit {CONFIG}:", shapes, expected)
    write_model(target, config, weights)
    if (folder / TOKENIZER).is_file():
        copy_tokenizer(folder, target)
        _keep_class(folder, target)
    if (folder / GENERATION).is_file():
        shutil.copyfile(folder / GENERATION, target / GENERATION)
    _say(folder, others)


def _keep_class(folder: Path, target: Path) -> None:
    """Write that tokenizer.json is taken as it is, where that follows from the wrapper's type."""
    if REGISTERED.get(read_config(folder)["model_type"]) == PLAIN_CLASS:
        file = target / "tokenizer_config.json"
        write_json(file, read_object(file, optional=True) | {"tokenizer_class": PLAIN_CLASS})


def of_text(folder: Path, names: Iterable[str]) -> tuple[dict[str, str], tuple[str, str]]:
    """Of an adapter's `names` (without PEFT's prefix) those of the text part, with its own name for each.

    Also what names of its layers begin with there, and here; both are "" if the adapter lies on no wrapper. Says what
    is left out. Raises ModelError: a part of an unknown kind.
    """
    names = list(names)
    pair = next((pair for pair in PREFIXES.items() if any(name.startswith(pair[0]) for name in names)), None)
    if pair is None:
        return {name: name for name in names}, ("", "")
    text, others = _split(folder, names)
    if others:
        _say(folder, others)
    return text, pair


def _split(folder: Path, names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The names of the text part with its own for each, and the parts that all others belong to."""
    owned = {name: _own(name) for name in names}
    others = sorted({_image_part(folder, name) for name, own in owned.items() if own is None})
    text = {name: own for name, own in owned.items() if own is not None}
    if twice := next((own for own, count in Counter(text.values()).items() if count > 1), None):
        both = " and ".join(name for name, own in text.items() if own == twice)
        raise ModelError(f"{folder}: {both} are one tensor, {twice}, under two names; leave one of them")
    return text, others


def _say(folder: Path, others: list[str]) -> None:
    warn(f"{folder}: only its text part is used, without images; left out: {', '.join(others) or 'nothing'}")


def _own(name: str) -> str | None:
    """The text part's own name of a tensor; None if it belongs to images."""
    for prefix, own in PREFIXES.items():
        if name.startswith(prefix):
            return own + name.removeprefix(prefix)
    return name if name.startswith("lm_head.") else None


def _image_part(folder: Path, name: str) -> str:
    part = name.removeprefix("model.").partition(".")[0]
    if part not in IMAGES:
        raise ModelError(f"{folder}: {name}: neither of the text part nor of images, so what it changes is not known")
    return part


def _config(folder: Path, weights: Weights) -> JsonObject:
    """The config.json of the text part: special tokens and tying are the wrapper's.

    As in transformers, a head of its own is used even where config.json says that it is the embeddings.
    """
    outer = read_config(folder)
    usual, tied = WRAPPERS[outer["model_type"]]
    inner = {"model_type": usual} | {key: value for key, value in outer["text_config"].items() if key != "torch_dtype"}
    name = inner["model_type"]
    if name not in TEXTS:
        raise ModelError(
            f"{folder / CONFIG}: text_config.model_type {name!r} is not supported; supported: {', '.join(TEXTS)}"
        )
    if inner.get(CAP) is not None:
        what = f"{inner[CAP]!r} has no effect in a {outer['model_type']}, but in its text part; set it to null"
        raise ModelError(f"{folder / CONFIG}: text_config.{CAP}: {what}")
    carried = {key: outer[key] for key in CARRIED if outer.get(key) is not None}
    head, embedding = weights.get(HEAD), weights.get(LLAMA_NAMES.whole["embedding"])
    own = head is not None and (embedding is None or not np.array_equal(head, embedding))
    tie = bool(outer.get("tie_word_embeddings", tied)) and not own
    settings = {"architectures": [TEXTS[name].architecture], "tie_word_embeddings": tie, "dtype": "float32"}
    return TEXTS[name].defaults | inner | carried | settings
