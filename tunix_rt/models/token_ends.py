"""How many characters of a text are written when each of its tokens is down.

A token may hold a part of a character, so the texts of single tokens do not add up to the text. As streaming decoders
do (`DecodeStream` of huggingface/tokenizers, `TextStreamer` of transformers), tokens are decoded in groups that end
with a whole character, each behind a token that is known: a decoder may treat the first one in its own way (Llama's
drops its leading space). A group that is not found in the text is made longer. So the time is linear in the number of
tokens, and every place that of the decoded prefix (but in bytes that are no characters, where prefixes may say less).
"""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.models.tokenizer import LONGEST_CHARACTER, Tokenizer

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
LONGEST_GROUP = 32
"""Tokens; no decoder of today's models needs more than a few."""


def token_ends(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> tuple[int, ...]:
    """For each of `ids`, the number of characters of their `text` that are written when it is down.

    Non-decreasing; the last is `len(text)`. A token that only begins a character, or that is left out of the text
    (a special one), adds 0. It is the longest common beginning of the text and the decoding of the tokens so far.
    """
    found: list[int] = []
    anchor = _anchor(tokenizer)
    while len(found) < len(ids):
        start, place = found[-1] if found else 0, len(found)
        known = anchor if start else list(ids[:place][-LONGEST_GROUP:])
        group = _first_group(tokenizer, known, ids[place : place + LONGEST_GROUP], text, start)
        if not group:
            return _by_prefixes(tokenizer, ids, text)
        found += [start + _in_common(piece, group[-1]) for piece in group]
    return tuple(found)


def _first_group(tokenizer: Tokenizer, known: list[int], ids: Sequence[int], text: str, start: int) -> list[str]:
    """The decodings of the first of `ids`, the first two, … up to the first group that stands at `start` of the text.

    Where four tokens make no character, what they begin with is none. Empty if there is no group.
    """
    before, pieces = len(tokenizer.decode(known)), []
    for size in range(1, len(ids) + 1):
        piece = tokenizer.decode([*known, *ids[:size]])[before:]
        pieces.append(piece)
        if text.startswith(piece, start) and (size == len(ids) or not piece.endswith(INCOMPLETE)):
            return pieces
        if size == len(ids) or size >= LONGEST_CHARACTER:
            for fewer, shorter in enumerate(pieces, 1):
                if text.startswith(shorter, start):
                    return pieces[:fewer]
    return []


def _anchor(tokenizer: Tokenizer) -> list[int]:
    """The tokens of an ordinary character that the vocabulary has."""
    character = next((sign for sign in "a0x1 " if not tokenizer.unknown(sign)), "")
    return tokenizer.ids(character) if character else []


def _by_prefixes(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> tuple[int, ...]:
    """As defined, in quadratic time: for a decoder in which a token changes what is far from it."""
    ends, end = [], 0
    for size in range(1, len(ids) + 1):
        end = max(end, _in_common(tokenizer.decode(ids[:size]), text))
        ends.append(end)
    return tuple(ends)


def _in_common(one: str, other: str) -> int:
    """Number of characters with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
