"""Text ↔ token ids: a tokenizer trained here, or the model's own, always from the folder's tokenizer.json.

Loading needs only the package `tokenizers`; only rendering a chat (`chat_template`) imports `transformers`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunix_rt.errors import DataError, ModelError
from tunix_rt.files import JsonObject, digest, sha256_file, write_json, write_text
from tunix_rt.models.chat_template import read_templates, render
from tunix_rt.models.faithful import Faithful
from tunix_rt.models.folder import CONFIG, TOKENIZER, read_object, read_stop_ids
from tunix_rt.models.splits import byte_level_with_single_digits
from tunix_rt.models.tokenizer_class import apply_class, forced_splits
from tunix_rt.models.tokenizer_config import add_declared, begin_of, check_config, special_tokens

if TYPE_CHECKING:
    import tokenizers

PAD, END = "<pad>", "<end>"
TOOLS = "tool_use"
"""The chat template for conversations with tools, where a tokenizer has one (as in `transformers`)."""
LONGEST_CHARACTER = 4
"""Bytes, and so at most tokens, of one character in UTF-8."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """Ids of a text, and for each id the [start, end) of the characters it covers."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """A character whose bytes became several tokens is covered by each of them."""
    rewritten: str = ""
    """What the tokenizer's own normaliser changed in the text ('Unicode NFC'); empty if nothing."""


class Tokenizer:
    """A tokenizer without side effects on text: it adds no special tokens, does not truncate, does not pad."""

    def __init__(self, folder: Path, inner: tokenizers.Tokenizer) -> None:
        self._folder, self._inner = folder, inner
        inner.no_truncation()
        inner.no_padding()
        applied = apply_class(folder, read_object(folder / "tokenizer_config.json", optional=True), inner)
        check_config(folder, applied, inner)
        late = add_declared(folder, applied.config, inner)
        self._settings = special_tokens(folder, applied.config, inner)
        self._templates = read_templates(folder, applied.config)
        self.begin_token = begin_of(folder, inner)
        """The text that the model's own tokenizer prepends to any text; empty if none."""
        stops = [text for text in map(inner.id_to_token, read_stop_ids(folder)) if text is not None]
        self.end_tokens = tuple(dict.fromkeys((self.end_token, *stops)))
        """Texts of all tokens at which generation stops; `end_token` is the first."""
        tools = {"tools": self._templates[TOOLS]} if TOOLS in self._templates else {}
        kept = {"special": self._settings, "template": self._templates.get("default"), **tools}
        ends = {"begin": self.begin_token, "end": self.end_tokens}
        changed = {key: value for key, value in {"class": applied.changed, "declared": late}.items() if value}
        self.digest = digest({"tokenizer": sha256_file(folder / TOKENIZER), **kept, **ends, **changed})
        """Hex sha256 of everything that determines the tokens of a text or a chat."""
        # A post-processor would trim white space from the offsets, and a part may begin with white space.
        inner.post_processor = None
        self._vocabulary: dict[str, int] = inner.get_vocab(with_added_tokens=True)
        self._known: dict[str, bool] = {}
        rows = read_object(folder / CONFIG, optional=True).get("vocab_size")
        self._without_row = self.beyond(rows) if isinstance(rows, int) else {}

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The tokenizer of a model folder.

        Raises ModelError if tokenizer.json is missing or damaged, or if no end token is declared.
        """
        from tokenizers import Tokenizer as Inner

        path = folder / TOKENIZER
        if not path.is_file():
            raise ModelError(f"{folder}: no {TOKENIZER} (a fast tokenizer is needed)")
        try:
            inner = Inner.from_file(str(path))
        except Exception as error:  # the library raises nothing more specific
            raise ModelError(f"{path}: not a tokenizer this version of `tokenizers` reads ({error})") from None
        return cls(folder, inner)

    @cached_property
    def vocab_size(self) -> int:
        """The largest id plus one."""
        return max(self._vocabulary.values()) + 1

    def beyond(self, rows: int) -> dict[str, int]:
        """Tokens, with their ids, for which a model with so many rows of embeddings has none."""
        return {text: index for text, index in self._vocabulary.items() if index >= rows}

    @property
    def begin_id(self) -> int | None:
        """The id of the token that begins a text; None if the tokenizer declares none."""
        return self._vocabulary.get(self._settings.get("bos_token", ""))

    @property
    def end_token(self) -> str:
        """The text of the token that ends a completion."""
        return self._settings["eos_token"]

    @property
    def end_id(self) -> int:
        """The id of `end_token`."""
        return self._vocabulary[self.end_token]

    @property
    def pad_id(self) -> int:
        """The id for padding; that of the end token if the tokenizer declares none."""
        return self._vocabulary[self._settings.get("pad_token", self.end_token)]

    @cached_property
    def added_tokens(self) -> frozenset[str]:
        """Texts that become one token wherever they occur, special tokens included."""
        return frozenset(token.content for token in self._inner.get_added_tokens_decoder().values())

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        """Texts that become one special token wherever they occur, and that `decode` leaves out."""
        return frozenset(token.content for token in self._inner.get_added_tokens_decoder().values() if token.special)

    def encode(self, text: str) -> Encoding:
        """Ids and character offsets. Adds no special tokens; their text, as in a chat prompt, is recognised.

        Raises DataError naming the characters that the vocabulary lacks, a token that the model has no row for, or text
        that gets lost.
        """
        if missing := self.unknown(text):
            shown = " ".join(repr(character) for character in sorted(missing)[:20])
            what = (
                "the model has no row of embeddings for"
                if missing & self._without_row.keys()
                else "the tokenizer's vocabulary lacks"
            )
            raise DataError(f"{what} {shown} (in {text[:60]!r})")
        encoding = self._inner.encode(text, add_special_tokens=False)
        change = self._faithful.rewritten(encoding, text)
        return Encoding(encoding.ids, self._faithful.offsets(encoding, text), change)

    def taker(self, text: str, span: tuple[int, int]) -> str | None:
        """The added token that takes white space of a part of a text with it (`lstrip`, `rstrip`); None if none."""
        return self._faithful.taker(text, span)

    @cached_property
    def _faithful(self) -> Faithful:
        return Faithful(self._inner, self.end_id)

    def ids(self, text: str) -> list[int]:
        """The ids of `encode`, for a text whose characters are known to be in the vocabulary."""
        return self._inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """The text of ids, special tokens left out unless `special`."""
        return self._inner.decode(list(ids), skip_special_tokens=not special)

    def spelled(self, token: int) -> str:
        """An id as the vocabulary has it; empty if it has none."""
        return self._inner.id_to_token(token) or ""

    def piece(self, token: int) -> str:
        """The text of one id, special tokens included; an incomplete character shows as �."""
        return self._inner.decode([token], skip_special_tokens=False)

    def pieces(self, ids: Sequence[int]) -> list[tuple[int, str]]:
        """(number of tokens, their text) one after the other: tokens that share a character stay together."""
        found, start = [], 0
        for end in range(1, len(ids) + 1):
            text = self._inner.decode(list(ids[start:end]), skip_special_tokens=False)
            if not text.endswith("�") or end - start == LONGEST_CHARACTER or end == len(ids):
                found.append((end - start, text))
                start = end
        return found

    def unknown(self, text: str) -> set[str]:
        """Characters of a text that become no token or the unknown token, and tokens that have no row in the model."""
        without_row = {token for token in self._without_row if token in text}
        if self._added is not None:
            text = self._added.sub("", text)
        return without_row | {character for character in set(text) if not self._knows(character)}

    @cached_property
    def _added(self) -> re.Pattern[str] | None:
        texts = sorted(self.added_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts))) if texts else None

    def _knows(self, character: str) -> bool:
        if character not in self._known:
            if type(self._inner.model).__name__ == "WordLevel":  # raises where another model gives <unk>
                self._known[character] = character in self._vocabulary
            else:
                tokens = self._inner.encode(character, add_special_tokens=False).tokens
                self._known[character] = bool(tokens) and self._settings.get("unk_token") not in tokens
        return self._known[character]

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        variables: Mapping[str, Any] | None = None,
        date: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Render messages (`role`, `content`) with the tokenizer's chat template, as `transformers` does.

        `add_generation_prompt` opens the assistant's turn at the end; `variables` are further variables of the
        template, `date` (YYYY-MM-DD) its current date, `tools` JSON schemas. Raises ModelError if there is no template
        or it refuses the messages.
        """
        template = self._templates.get(TOOLS if tools and TOOLS in self._templates else "default")
        if template is None:
            raise ModelError("the tokenizer has no chat template; use format=plain")
        given = {**self._settings, **(variables or {}), "add_generation_prompt": add_generation_prompt}
        try:
            return render(template, messages, given, date, tools)
        except ModelError as error:
            raise ModelError(f"{self._folder}: {error}") from None


def train_char(texts: Iterable[str], characters: str | None, folder: Path, added: Sequence[str] = ()) -> None:
    """Write a tokenizer with one token per character, after `<pad>` = 0 and `<end>` = 1, before the tokens `added`.

    `characters` is the alphabet in order; None: every character of `texts`, sorted (`<end>` does not count as text).
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Inner

    if characters is None:
        found: set[str] = set()
        for text in _without(texts, added):
            found.update(text)
        characters = "".join(sorted(found))
    vocabulary = {token: index for index, token in enumerate([PAD, END, *dict.fromkeys(characters)])}
    inner = Inner(models.WordLevel(vocabulary))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    _write_trained(inner, folder, added)


def train_bpe(
    texts: Iterable[str], vocab_size: int, folder: Path, added: Sequence[str] = (), model_type: object = None
) -> None:
    """Write a byte-level BPE of at most `vocab_size` tokens: `<pad>` = 0, `<end>` = 1, all bytes, merges; then `added`.

    Digits stay single tokens, so that numbers are read digit by digit (as in SmolLM and Llama). For a model of a type
    for which `transformers` splits every text in one way, it is split so.
    """
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = Inner(models.BPE())
    inner.normalizer, inner.pre_tokenizer = forced_splits(model_type) or (None, byte_level_with_single_digits())
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(_without(texts, added), trainer)
    _write_trained(inner, folder, added)


def _without(texts: Iterable[str], added: Sequence[str]) -> Iterator[str]:
    for text in texts:
        for token in (END, *added):
            text = text.replace(token, "")
        yield text


def _write_trained(inner: tokenizers.Tokenizer, folder: Path, added: Sequence[str]) -> None:
    inner.add_special_tokens([PAD, END])
    add_tokens(inner, added)
    write_tokenizer(folder, inner, {"eos_token": END, "pad_token": PAD})


def add_tokens(inner: tokenizers.Tokenizer, added: Sequence[str]) -> None:
    """Make each text one token wherever it occurs, appended to the vocabulary if it is not in it yet.

    They are not special tokens: decoding keeps their text (as with Qwen3's `<think>`).
    """
    from tokenizers import AddedToken

    inner.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])


def write_tokenizer(folder: Path, inner: tokenizers.Tokenizer, settings: JsonObject) -> None:
    """Write tokenizer.json and tokenizer_config.json so that plain `AutoTokenizer` loads the same tokenizer."""
    general = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_text(folder / TOKENIZER, inner.to_str(pretty=True))
    write_json(folder / "tokenizer_config.json", general | settings)
