"""A tokenizer_config.json: the special tokens it names, and whether it agrees with tokenizer.json, which is computed.

`transformers` adds tokens that only tokenizer_config.json declares, and lets it change how a token matches. Both files
of a tokenizer that `transformers` saved agree; where they do not, the field is named, but for a token of the vocabulary
that is only declared: it is added here, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.families.fields import Fields
from tunix_rt.models.folder import CONFIG, GENERATION, TOKENIZER, read_object
from tunix_rt.models.tokenizer_class import DECODER, PLAIN_CLASS, Applied

if TYPE_CHECKING:
    import tokenizers

SPECIAL = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
FURTHER = ("extra_special_tokens", "additional_special_tokens", "model_specific_special_tokens")
MAP = "special_tokens_map.json"
MATCHING = ("lstrip", "rstrip", "single_word", "special")
"""How an added token matches, and whether decoding leaves it out."""
PLAIN: dict[str, tuple[object, ...]] = {"split_special_tokens": (False,), "fix_mistral_regex": (False, None)}
"""Fields that change how text is split, and the values for which tokenizer.json is right."""
AGREE = "transformers' AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) makes the two agree"
LACKING = ("eos_token", "pad_token", "unk_token")
"""What the vocabulary may lack: `special_tokens` checks the first two, the third stands for all that it lacks."""
Flags = dict[str, Any]
"""`content` of an added token, and how it matches."""


def check_config(folder: Path, applied: Applied, inner: tokenizers.Tokenizer) -> None:
    """Raise ModelError naming the field of tokenizer_config.json by which `transformers` would give other tokens."""
    fields = Fields(applied.config, str(folder / "tokenizer_config.json"))
    for name, allowed in PLAIN.items():
        fields.plain(name, *allowed)
    _check_matching(fields, inner, applied.rebuilt)
    for file, name, token in _declared(folder, applied.config):
        if name not in LACKING and inner.token_to_id(token["content"]) is None:
            what = f"{token['content']!r} is not in {TOKENIZER}, so it would be read as ordinary text; {AGREE}"
            raise Fields(applied.config, str(folder / file)).refuse(name, what)


def add_declared(folder: Path, config: JsonObject, inner: tokenizers.Tokenizer) -> list[Flags]:
    """Make declared tokens of the vocabulary one token wherever they occur, as `transformers` does; returns those that
    tokenizer.json does not add itself.
    """
    from tokenizers import AddedToken

    known = {token.content for token in inner.get_added_tokens_decoder().values()}
    found = {token["content"]: token for _, _, token in reversed(list(_declared(folder, config)))}
    late = [token for text, token in found.items() if text not in known and inner.token_to_id(text) is not None]
    inner.add_tokens([AddedToken(**token) for token in late])
    return sorted(late, key=lambda token: str(token["content"]))


def begin_of(folder: Path, inner: tokenizers.Tokenizer) -> str:
    """The text that the post-processor puts before any text; empty if none. Raises ModelError: no text becomes it."""
    inside = [] if inner.post_processor is None else inner.encode(PROBE, add_special_tokens=False).ids
    whole = inner.encode(PROBE).ids if inside else []
    count = next((at for at in range(len(whole)) if whole[at : at + len(inside)] == inside), 0)
    text = "".join(inner.id_to_token(token) or "" for token in whole[:count])
    if inner.encode(text, add_special_tokens=False).ids != whole[:count]:
        raise ModelError(
            f"{folder / TOKENIZER}: post_processor puts {text!r} before a text, which is not among its added_tokens, "
            "so no text becomes these tokens; add them there"
        )
    return text


PROBE = "a"
"""A text that becomes tokens in every tokenizer with a post-processor."""


def _older(folder: Path, config: JsonObject, name: str) -> JsonObject:
    """A file that `transformers` 5 reads, before tokenizer_config.json, only if that has no `added_tokens_decoder`."""
    return {} if DECODER in config else read_object(folder / name, optional=True)


def _declared(folder: Path, config: JsonObject) -> Iterator[tuple[str, str, Flags]]:
    """File, field and flags of each special token, and of each token of added_tokens.json."""
    special = set()
    for file, content in (("tokenizer_config.json", config), (MAP, _older(folder, config, MAP))):
        for name in (*SPECIAL, *FURTHER, *(name for name in specific(content) if name in content)):
            value = content.get(name)
            entries = value if isinstance(value, list) else [value]
            if isinstance(value, dict) and "content" not in value:
                entries = list(value.values())
            for entry in entries:
                given = entry if isinstance(entry, dict) else {"content": entry}
                if isinstance(text := given.get("content"), str):
                    special.add(text)
                    yield file, name, {"content": text, "special": True, "normalized": False} | _flags(given)
    for text in _older(folder, config, "added_tokens.json"):
        kind = {"special": text in special, "normalized": text not in special}
        yield "added_tokens.json", FURTHER[1], {"content": text} | kind


def _flags(entry: Mapping[str, Any]) -> Flags:
    return {name: bool(entry[name]) for name in ("lstrip", "rstrip", "single_word", "normalized") if name in entry}


def specific(config: JsonObject) -> dict[str, str]:
    """Tokens of this one model by the name that `transformers` and its templates have for them: `image_token` …"""
    found = {name: text for name, text in config.items() if name.endswith("_token") and name not in SPECIAL}
    for name in (FURTHER[0], FURTHER[2]):
        if isinstance(given := config.get(name), dict):
            found |= given
    return {name: text for name, text in found.items() if isinstance(text, str)}


def _check_matching(fields: Fields, inner: tokenizers.Tokenizer, rebuilt: bool) -> None:
    added = {token.content: token for token in inner.get_added_tokens_decoder().values()}
    entries = fields.config.get(DECODER) or {}
    if not isinstance(entries, dict) or not all(_is_token(entry) for entry in entries.values()):
        raise fields.refuse(DECODER, "expected an object from an id to an object with the text `content`")
    for entry in entries.values():
        token = added.get(entry["content"])
        for name in MATCHING:
            if token is None or entry.get(name, False) != getattr(token, name):
                there = "no added token" if token is None else f"{name} {str(getattr(token, name)).lower()}"
                raise fields.refuse(DECODER, f"{entry['content']!r} is {there} in {TOKENIZER}, not here; {AGREE}")
    only = added.keys() - {entry["content"] for entry in entries.values()} if rebuilt and entries else set()
    if only:
        what = (
            f"{min(only)!r} is an added token in {TOKENIZER}, not here, where alone transformers looks for this class"
        )
        raise fields.refuse(DECODER, f'{what}; add it, or set "tokenizer_class": "{PLAIN_CLASS}"')


def _is_token(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("content"), str)


def special_tokens(folder: Path, config: JsonObject, inner: tokenizers.Tokenizer) -> dict[str, str]:
    """Texts of bos, eos, pad … by name, from special_tokens_map.json (of older versions), else tokenizer_config.json,
    else the ids of generation_config.json and config.json. Raises ModelError if eos is missing, or eos or pad unknown.
    """
    older = _older(folder, config, MAP)
    declared = {key: older.get(key) or config.get(key) for key in SPECIAL}
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in declared.items()}
    tokens = specific(older) | specific(config)
    tokens |= {key: text for key, text in texts.items() if isinstance(text, str)}
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
