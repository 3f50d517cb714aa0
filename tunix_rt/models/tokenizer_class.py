"""The tokenizer classes of `transformers` (5.22), and what they put in the place of parts of a tokenizer.json.

Since version 5 some classes take only vocabulary, merges, added tokens and post-processor from tokenizer.json, and
build the rest themselves (`convert_to_native_format` in tokenization_utils_tokenizers.py): the same file gives other
tokens under another class. Which class it is follows from `tokenizer_class` and `model_type`
(`AutoTokenizer.from_pretrained` in models/auto/tokenization_auto.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunix_rt.config.choices import SPLIT_BY_TYPE
from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.folder import CONFIG, TOKENIZER, read_object
from tunix_rt.models.splits import QWEN2, byte_level_by_pattern
from tunix_rt.terminal import warn

if TYPE_CHECKING:
    import tokenizers

DECODER = "added_tokens_decoder"
PLAIN_CLASS = "PreTrainedTokenizerFast"
"""The class that takes tokenizer.json as it is."""
REGISTERED = {
    "gemma2": "GemmaTokenizer",
    "gemma3": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "llava": PLAIN_CLASS,
    "llava_next": PLAIN_CLASS,
    "mistral": PLAIN_CLASS,
    "mistral3": PLAIN_CLASS,
    "mixtral": PLAIN_CLASS,
    "olmo2": PLAIN_CLASS,
    "olmoe": "GPTNeoXTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen2_moe": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "qwen3_moe": "Qwen2Tokenizer",
}
"""`model_type` → its class (`TOKENIZER_MAPPING_NAMES`). Where it is PLAIN_CLASS, so is every tokenizer."""
OTHERS = frozenset(
    f"{name}Tokenizer"
    for name in (
        "Albert Bart Barthez Bartpho Bert BertGeneration BertJapanese Bertweet BigBird BioGpt Blenderbot "
        "BlenderbotSmall ByT5 Camembert Canine CLIP Clvp CodeGen CodeLlama Cohere Cpm CpmAnt CTRL Deberta "
        "DebertaV2 Dia DistilBert DPRContextEncoder DPRQuestionEncoder DPRReader Esm Esmc "
        "FastSpeech2Conformer Flaubert FSMT Funnel GPTNeoXJapanese GPTSw3 Herbert Lasr LayoutLMv2 LayoutLMv3 "
        "LayoutXLM LED Luke Lxmert M2M100 Marian MarkupLM MBart MBart50 Mgpstr MLuke MobileBert MPNet Mvp "
        "MyT5 Nllb Nougat OpenAIGPT Pegasus Perceiver Phobert PLBart Pop2Piano ProphetNet Qwen3_5 Reformer "
        "RemBert Roberta RoCBert RoFormer SeamlessM4T Siglip Siglip2 Speech2Text SpeechT5 Splinter "
        "SqueezeBert T5 Tapas Tipsv2 Udop VideoPrism Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC Whisper XGLM XLM "
        "XLMRoberta XLNet"
    ).split()
)
"""Further classes that do not take tokenizer.json as it is."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a class builds in place of what tokenizer.json says, and the special tokens that it has by default."""

    normalizer: Any
    pre_tokenizer: Any
    decoder: Any
    special: Mapping[str, str]
    byte_fallback: bool = False
    begins: bool = True
    """Whether the post-processor of tokenizer.json is kept."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A tokenizer_config.json with the defaults of its class."""

    config: JsonObject
    changed: JsonObject = field(default_factory=dict)
    """What of the class replaced parts of tokenizer.json that change tokens; empty if nothing did."""
    rebuilt: bool = False
    """Whether the class adds the tokens of `added_tokens_decoder`, where there is one, and no others."""


def class_of(model_type: object, declared: object, byte_level: bool) -> str:
    """The class that `AutoTokenizer` takes, without `Fast`; PLAIN_CLASS if it takes tokenizer.json as it is.

    `byte_level`: whether tokenizer.json writes bytes as characters, which LlamaTokenizer cannot.
    """
    name, registered = str(declared or "").removesuffix("Fast"), REGISTERED.get(str(model_type), "")
    if registered == PLAIN_CLASS or (name == "LlamaTokenizer" and byte_level):
        return PLAIN_CLASS
    if not name or model_type in SPLIT_BY_TYPE:
        name = registered
    return name if name in OTHERS or name in BUILDS else PLAIN_CLASS


def apply_class(folder: Path, config: JsonObject, inner: tokenizers.Tokenizer) -> Applied:
    """Put into a tokenizer what the class of its folder builds; says so where that changes tokens.

    Raises ModelError: a class that is not known here, or that cannot be built from tokenizer.json.
    """
    general = read_object(folder / CONFIG, optional=True)
    model_type, declared = general.get("model_type"), config.get("tokenizer_class") or general.get("tokenizer_class")
    states = json.dumps([state_of(inner.pre_tokenizer), state_of(inner.decoder)])
    name = class_of(model_type, declared, '"ByteLevel"' in states)
    if name == PLAIN_CLASS:
        return Applied(config)
    remedy = "" if model_type in SPLIT_BY_TYPE else f'; "tokenizer_class": "{PLAIN_CLASS}" takes {TOKENIZER} as it is'
    where = f"{folder / 'tokenizer_config.json'}: tokenizer_class"
    if name not in BUILDS:
        raise ModelError(f"{where}: {name} is not supported: transformers takes only parts of {TOKENIZER}{remedy}")
    if (kind := type(inner.model).__name__) != "BPE":
        raise ModelError(f"{where}: transformers makes a {name} of it, which is a BPE, not a {kind}{remedy}")
    parts = BUILDS[name](config)
    special = {key: text for key, text in parts.special.items() if inner.token_to_id(text) is not None}
    changed = _replace(inner, parts)
    if changed:
        _say(f"{folder}: as in transformers, {name} has its own {' and '.join(changed)}, not {TOKENIZER}'s{remedy}")
    return Applied(special | config, {"class": name} | changed if changed else {}, rebuilt=True)


def forced_splits(model_type: object) -> tuple[Any, Any] | None:
    """Normaliser and pre-tokenizer of every tokenizer of a model type that has its class whatever is written."""
    if model_type not in SPLIT_BY_TYPE:
        return None
    parts = BUILDS[REGISTERED[str(model_type)]]({})
    return parts.normalizer, parts.pre_tokenizer


@cache
def _say(text: str) -> None:
    warn(text)


def _replace(inner: tokenizers.Tokenizer, parts: _Parts) -> JsonObject:
    """Put the parts into a tokenizer; returns the new states of those that change the tokens of a text."""
    changed = {}
    for name in ("normalizer", "pre_tokenizer"):
        state = state_of(getattr(parts, name))
        if state != state_of(getattr(inner, name)):
            setattr(inner, name, getattr(parts, name))
            changed[name] = state
    model: Any = inner.model
    for name, value in (("byte_fallback", parts.byte_fallback), ("ignore_merges", False)):
        if getattr(model, name) != value:
            setattr(model, name, value)
            changed[name] = value
    inner.decoder = parts.decoder
    if not parts.begins:
        inner.post_processor = None
    return changed


def state_of(part: Any) -> Any:
    """A part as in tokenizer.json (or what stands there), but for offsets, which are not trimmed here."""
    if part is None:
        return None
    text = json.dumps(part) if isinstance(part, dict) else part.__getstate__()
    return json.loads(text, object_hook=_without_offsets)


def _without_offsets(state: JsonObject) -> JsonObject:
    return {name: value for name, value in state.items() if name != "trim_offsets"}


def _llama(config: JsonObject) -> _Parts:
    from tokenizers import decoders, pre_tokenizers

    prefixed = config.get("add_prefix_space") in (True, None)
    scheme = ("always" if config.get("legacy") else "first") if prefixed else "never"
    strip = [decoders.Strip(content=" ", left=1)] if prefixed else []
    return _Parts(
        normalizer=None,
        pre_tokenizer=pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False),
        decoder=decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]),
        special={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        byte_fallback=True,
    )


def _gemma(config: JsonObject) -> _Parts:
    from tokenizers import decoders, normalizers, pre_tokenizers

    names = ("unk", "bos", "eos", "pad", "mask")
    return _Parts(
        normalizer=normalizers.Replace(" ", "▁"),
        pre_tokenizer=pre_tokenizers.Split(" ", behavior="merged_with_previous"),
        decoder=decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
        special={f"{name}_token": f"<{name}>" for name in names},
        byte_fallback=True,
    )


def _qwen2(config: JsonObject) -> _Parts:
    from tokenizers import decoders, normalizers

    return _Parts(
        normalizer=normalizers.NFC(),
        pre_tokenizer=byte_level_by_pattern(QWEN2, bool(config.get("add_prefix_space"))),
        decoder=decoders.ByteLevel(),
        special=dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>"),
    )


def _gpt2(config: JsonObject) -> _Parts:
    from tokenizers import decoders, pre_tokenizers

    return _Parts(
        normalizer=None,
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space"))),
        decoder=decoders.ByteLevel(),
        special=dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>"),
    )


def _gpt_neox(config: JsonObject) -> _Parts:
    from tokenizers import normalizers

    parts = _gpt2(config)
    special = {**parts.special, "pad_token": "<|padding|>"}
    return _Parts(normalizers.NFC(), parts.pre_tokenizer, parts.decoder, special, begins=False)


BUILDS: dict[str, Callable[[JsonObject], _Parts]] = {
    "GPT2Tokenizer": _gpt2,
    "GPTNeoXTokenizer": _gpt_neox,
    "GemmaTokenizer": _gemma,
    "LlamaTokenizer": _llama,
    "Qwen2Tokenizer": _qwen2,
}
"""Class → what it builds, from tokenizer_config.json."""
