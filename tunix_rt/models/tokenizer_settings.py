"""What the JSON files of a model folder say about its tokenizer: special tokens, begin token, chat template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.folder import read_object

if TYPE_CHECKING:
    import tokenizers

SPECIAL_KEYS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def optional(path: Path) -> JsonObject:
    """The JSON object in a file, empty if there is no such file. Raises ModelError."""
    return read_object(path) if path.is_file() else {}


def special_tokens(folder: Path, config: JsonObject, inner: tokenizers.Tokenizer) -> dict[str, str]:
    """Texts of bos, eos, pad …, from tokenizer_config.json, else special_tokens_map.json, else the ids of
    generation_config.json and config.json. Raises ModelError if eos is missing, or eos or pad unknown."""
    legacy = optional(folder / "special_tokens_map.json")
    tokens: dict[str, str] = {}
    for key in SPECIAL_KEYS:
        value = config.get(key) or legacy.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            tokens[key] = text
    for name in ("generation_config.json", "config.json"):
        ids = optional(folder / name)
        for key in ("eos_token", "pad_token"):
            value = ids.get(f"{key}_id")
            first = value[0] if isinstance(value, list) and value else value
            text = inner.id_to_token(first) if isinstance(first, int) else None
            if text is not None:
                tokens.setdefault(key, text)
    for key in ("eos_token", "pad_token"):
        if key in tokens and inner.token_to_id(tokens[key]) is None:
            raise ModelError(f"{folder}: {key} {tokens[key]!r} is not in the vocabulary of tokenizer.json")
    if "eos_token" not in tokens:
        raise ModelError(
            f"{folder}: no end token: neither eos_token in tokenizer_config.json nor eos_token_id in "
            "generation_config.json"
        )
    return tokens


def puts_begin_token(inner: tokenizers.Tokenizer, begin: str | None) -> bool:
    """Whether the tokenizer prepends the bos token to a text by default."""
    return begin is not None and inner.encode("").ids[:1] == [inner.token_to_id(begin)]


def chat_template(folder: Path, config: JsonObject) -> str | None:
    """The template in chat_template.jinja, else tokenizer_config.json; of several named ones the `default`."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text("utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {item.get("name"): item.get("template") for item in template}.get("default")
    return template if isinstance(template, str) else None
