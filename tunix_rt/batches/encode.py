"""Labelled parts of text → token ids and target weights.

The text is tokenised once as a whole; each token takes the weight of the part in which its first
character lies (a token that straddles two parts belongs to the first). Where the model takes over from a
prompt none may straddle: there the ids must be those of the prompt alone, which is what inference is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np

from tunix_rt.batches.encoded import Encoded
from tunix_rt.config.dataset import LossWeights
from tunix_rt.errors import DataError
from tunix_rt.models.tokenizer import Encoding, Tokenizer
from tunix_rt.traces.format import Part


def encode(parts: Sequence[Part], tokenizer: Tokenizer, weights: LossWeights) -> Encoded:
    """Tokenise the joined parts and weight each token by its part.

    Raises DataError for unknown characters and lost text, for a doubled begin token, if the tokens of the prompt alone
    differ from the text's first ones, and if the end is not the single token at which generation stops.
    """
    text = "".join(part.text for part in parts)
    encoding = tokenizer.encode(text)
    for end in _takeovers(parts):
        _check_prompt(tokenizer.ids(text[:end]), encoding, text, end, tokenizer)
    if problem := doubled_begin(encoding.ids, tokenizer):
        raise DataError(problem)
    if parts and parts[-1].kind == "end":
        _check_end(encoding, len(text) - len(parts[-1].text), text, tokenizer)
    ends = np.cumsum([len(part.text) for part in parts])
    starts = np.array([start for start, _ in encoding.offsets], dtype=np.int64)
    by_part = np.array([_weight(part, weights) for part in parts], dtype=np.float32)
    by_token = by_part[np.searchsorted(ends, starts, side="right")]
    return Encoded(np.array(encoding.ids, dtype=np.int32), by_token, encoding.rewritten)


def _weight(part: Part, weights: LossWeights) -> float:
    own = 1.0 if part.kind == "message" else getattr(weights, part.kind)
    return float(own * part.scale)


def completion_length(parts: Sequence[Part], tokenizer: Tokenizer) -> int:
    """Number of tokens after the last prompt, including the end token. Raises DataError for unknown characters."""
    text = "".join(part.text for part in parts)
    return len(tokenizer.encode(text).ids) - len(tokenizer.ids(text[: max(_takeovers(parts), default=0)]))


def _takeovers(parts: Sequence[Part]) -> Iterator[int]:
    """Character positions where a prompt ends and the model begins to write."""
    ends = accumulate(len(part.text) for part in parts)
    for (part, following), end in zip(pairwise(parts), ends, strict=False):
        if part.kind == "prompt" and following.kind != "prompt" and end:
            yield end


def _check_prompt(ids: Sequence[int], whole: Encoding, text: str, end: int, tokenizer: Tokenizer) -> None:
    """Raises DataError, showing both sides, unless the tokens of `text[:end]` alone are the first of the whole text."""
    count = len(ids)
    if whole.ids[:count] == ids and all(start >= end for start, _ in whole.offsets[count : count + 1]):
        return
    at = next((i for i, (a, b) in enumerate(zip(ids, whole.ids, strict=False)) if a != b), min(count, len(whole.ids)))
    sides = [_shown(side[max(at - 2, 0) : at + 3], tokenizer) for side in (ids, whole.ids)]
    raise DataError(
        f"prompt and completion become tokens together: of the prompt alone {sides[0]}, in the training text "
        f"{sides[1]} (token {at}, around {text[max(end - 20, 0) : end + 20]!r}): a model would be asked another text "
        "than it learned; end the prompt with other text (format), or begin the completion with other text (data)"
    )


def _shown(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    return " ".join(f"{token} {tokenizer.piece(token)!r}" for token in ids) or "nothing"


def doubled_begin(ids: Sequence[int], tokenizer: Tokenizer) -> str | None:
    """What is wrong if a text begins with two begin tokens, which no model has been trained on; else None."""
    begins = tokenizer.ids(tokenizer.begin_token) or ([] if tokenizer.begin_id is None else [tokenizer.begin_id])
    if not begins or list(ids[: 2 * len(begins)]) != begins * 2:
        return None
    begin = "".join(map(tokenizer.piece, begins))
    return f"the text begins with {begin!r} twice (format, or the chat template): one of them must go"


def _check_end(encoding: Encoding, start: int, text: str, tokenizer: Tokenizer) -> None:
    """Raises DataError unless the end, `text[start:]`, is exactly one token."""
    if encoding.offsets[-1:] != [(start, len(text))]:
        raise DataError(
            f"the end token {text[start:]!r} becomes {_shown(encoding.ids[-3:], tokenizer)}: it is not among the added "
            "tokens of tokenizer.json, so a model would never learn to stop"
        )
