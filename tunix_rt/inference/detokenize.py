"""The text of tokens as they come: only what later tokens cannot change, and in the end what `decode` gives of all.

As in streaming decoders (`DecodeStream` of huggingface/tokenizers, vLLM's `detokenize_incrementally`), tokens are
decoded in groups that end with a whole character, each behind the group before it: a decoder may treat the first token
in its own way (Llama's drops its leading space).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunix_rt.models.token_bytes import bytes_of, is_byte
from tunix_rt.models.token_ends import INCOMPLETE
from tunix_rt.models.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Group:
    """Tokens that make whole characters together, and their text; special tokens add nothing to it."""

    ids: tuple[int, ...]
    text: str
    bytes: tuple[bytes, ...]
    """Of each token, in UTF-8; those of special tokens too."""


class Detokenizer:
    """One token after the other in, groups out."""

    def __init__(self, tokenizer: Tokenizer, special: bool = False) -> None:
        """`special`: the texts of special tokens are shown."""
        self._tokenizer, self._special = tokenizer, special
        self._before: tuple[int, ...] = ()
        self._waiting: list[int] = []

    def add(self, token: int) -> Group | None:
        """The group that this token completes; None if its text may still change."""
        self._waiting.append(token)
        spelled = self._tokenizer.spelled(token)
        if is_byte(spelled) or spelled in self._tokenizer.special_tokens:
            return None
        text = self._behind(self._waiting)
        return None if not text or text.endswith(INCOMPLETE) else self._group(text)

    def end(self) -> Group | None:
        """What is left when no token follows; None if nothing is."""
        return self._group(self._behind(self._waiting)) if self._waiting else None

    def bytes_of(self, token: int) -> bytes:
        """Of a token that might have come next."""
        text = "" if self._waiting else self._behind([token])
        return text.encode("utf-8") if text and INCOMPLETE not in text else bytes_of(self._tokenizer, token)

    def _behind(self, ids: Sequence[int]) -> str:
        known = len(self._tokenizer.decode(self._before, self._special))
        return self._tokenizer.decode([*self._before, *ids], self._special)[known:]

    def _group(self, text: str) -> Group:
        ids = tuple(self._waiting)
        alone = len(ids) == 1 and text and INCOMPLETE not in text
        found = Group(ids, text, tuple(text.encode() if alone else bytes_of(self._tokenizer, token) for token in ids))
        self._before, self._waiting = ids, []
        return found
