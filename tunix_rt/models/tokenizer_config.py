"""A tokenizer_config.json: the special tokens it names, and whether it agrees with tokenizer.json, which is computed.

`transformers` adds tokens that only tokenizer_config.json declares, and lets it change how a token matches. Both files
of a tokenizer that `transformers` saved agree; where they do not, the field is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.families.fields import Fields
from tunix_rt.models.folder import CONFIG, GENERATION, TOKENIZER, read_object

if TYPE_CHECKING:
    import tokenizers

SPECIAL = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
FURTHER = ("extra_special_tokens", "additional_special_tokens", "model_specific_special_tokens")
DECODER = "added_tokens_decoder"
MAP = "special_tokens_map.json"
MATCHING = ("lstrip", "rstrip", "single_word", "special")
"""How an added token matches, and whether decoding leaves it out."""
PLAIN: dict[str, tuple[object, ...]] = {"split_special_tokens": (False,), "fix_mistral_regex": (False, None)}
"""Fields that change how text is split, and the values for which tokenizer.json is right."""
AGREE = "transformers' AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) makes the two agree"


def check_config(folder: Path, config: JsonObject, inner: tokenizers.Tokenizer) -> None:
    """Raise ModelError naming the field of tokenizer_config.json by which `transformers` would give other tokens."""
    fields = Fields(config, str(folder / "tokenizer_config.json"))
    for name, allowed in PLAIN.items():
        fields.plain(name, *allowed)
    if config.get("add_prefix_space") and _pieces(inner, "a") == ["a"]:
        raise fields.refuse("add_prefix_space", f"true, but {TOKENIZER} puts no blank before a text; {AGREE}")
    older = {"added_tokens.json": {FURTHER[0]: list(_older(folder, config, "added_tokens.json"))}}
    older |= {MAP: _older(folder, config, MAP)}
    for file, declared in ({"tokenizer_config.json": config} | older).items():
        for name, text in _declared(declared):
            if inner.token_to_id(text) is None:
                what = f"{text!r} is not in {TOKENIZER}, so it would be read as ordinary text; {AGREE}"
                raise Fields(config, str(folder / file)).refuse(name, what)
    _check_matching(fields, inner)


def _older(folder: Path, config: JsonObject, name: str) -> JsonObject:
    """A file that `transformers` 5 reads, before tokenizer_config.json, only if that has no `added_tokens_decoder`."""
    return {} if DECODER in config else read_object(folder / name, optional=True)


def _pieces(inner: tokenizers.Tokenizer, text: str) -> list[str]:
    """What the model of the tokenizer is given of a text."""
    text = text if inner.normalizer is None else inner.normalizer.normalize_str(text)
    return [text] if inner.pre_tokenizer is None else [piece for piece, _ in inner.pre_tokenizer.pre_tokenize_str(text)]


def _declared(config: JsonObject) -> Iterator[tuple[str, str]]:
    """Field and text of each token, but for the end and the padding (`special_tokens` checks them) and the unknown
    token, which stands for what the vocabulary lacks, and may be lacking too.
    """
    for name in (*SPECIAL, *FURTHER, DECODER):
        value = config.get(name)
        entries = value if isinstance(value, list) else [value]
        if isinstance(value, dict) and "content" not in value:
            entries = list(value.values())
        for entry in entries:
            text = entry.get("content") if isinstance(entry, dict) else entry
            if isinstance(text, str) and name not in ("eos_token", "pad_token", "unk_token"):
                yield name, text


def _check_matching(fields: Fields, inner: tokenizers.Tokenizer) -> None:
    added = {token.content: token for token in inner.get_added_tokens_decoder().values()}
    for entry in (fields.config.get(DECODER) or {}).values():
        token = added.get(entry["content"])
        for name in MATCHING:
            if token is None or entry.get(name, False) != getattr(token, name):
                there = "no added token" if token is None else f"{name} {str(getattr(token, name)).lower()}"
                raise fields.refuse(DECODER, f"{entry['content']!r} is {there} in {TOKENIZER}, not here; {AGREE}")


def special_tokens(folder: Path, config: JsonObject, inner: tokenizers.Tokenizer) -> dict[str, str]:
    """Texts of bos, eos, pad …, from special_tokens_map.json (of older versions), else tokenizer_config.json, else the
    ids of generation_config.json and config.json. Raises ModelError if eos is missing, or eos or pad unknown.
    """
    older = _older(folder, config, MAP)
    declared = {key: older.get(key) or config.get(key) for key in SPECIAL}
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in declared.items()}
    tokens = {key: text for key, text in texts.items() if isinstance(text, str)}
    for name in (GENERATION, CONFIG):
        ids = read_object(folder / name, optional=True)
        for key in ("eos_token", "pad_token"):
            value = ids.get(f"{key}_id")
            first = value[0] if isinstance(value, list) and value else value
            text = inner.id_to_token(first) if isinstance(first, int) else None
            if text is not None:
                tokens.setdefault(key, text)
    for key in ("eos_token", "pad_token"):
        if key in tokens and inner.token_to_id(tokens[key]) is None:
            raise ModelError(f"{folder}: {key} {tokens[key]!r} is not in the vocabulary of {TOKENIZER}")
    if "eos_token" not in tokens:
        raise ModelError(
            f"{folder}: no end token: no eos_token in tokenizer_config.json, no eos_token_id in {GENERATION}"
        )
    return tokens
