"""The bytes of single tokens, of which one may hold a part of a character only."""

from __future__ import annotations

import re
from functools import cache

from tunix_rt.models.token_ends import INCOMPLETE
from tunix_rt.models.tokenizer import Tokenizer

SPACE = "▁"
"""How SentencePiece writes a space."""
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""How it writes a byte, where it has no token for a character."""


def is_byte(spelled: str) -> bool:
    """Whether a token is one byte. A run of them is decoded as a whole, so that the next may change its text."""
    return BYTE.fullmatch(spelled) is not None


def bytes_of(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes of one token in UTF-8; a space that a decoder drops at the beginning of a text is there."""
    text, spelled = tokenizer.piece(token), tokenizer.spelled(token)
    if INCOMPLETE not in text:
        dropped = spelled.startswith(SPACE) and not text.startswith((SPACE, " "))
        return (" " * dropped + text).encode("utf-8")
    if single := BYTE.fullmatch(spelled):
        return bytes.fromhex(single[1])
    return b"".join(_byte_level().get(sign, sign.encode("utf-8")) for sign in spelled)


@cache
def _byte_level() -> dict[str, bytes]:
    """The character by which a byte-level BPE writes each byte (`bytes_to_unicode` of GPT-2) → that byte."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(0x100) if value not in shown]
    signs = [*map(chr, shown), *(chr(0x100 + place) for place in range(len(others)))]
    return {sign: bytes([value]) for sign, value in zip(signs, [*shown, *others], strict=True)}
