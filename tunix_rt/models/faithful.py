"""Whether the tokens of a text say the text: what a tokenizer's own normaliser rewrites in it, and what gets lost.

A normaliser is part of what a pretrained model has learned, so it stays as it is and is counted; lost text is an error.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from tunix_rt.errors import DataError

if TYPE_CHECKING:
    import tokenizers

Span = tuple[int, int]
BLANK = "▁"
"""What sentencepiece writes for a blank, and therefore reads as one."""
REWRITES: dict[str, Callable[[str], str]] = {
    **{f"Unicode {form}": partial(unicodedata.normalize, form) for form in ("NFC", "NFKC", "NFD", "NFKD")},
    "lower case": str.lower,
    f"{BLANK} is read as a blank": lambda text: text.replace(BLANK, " "),
}
OTHER = "its own normaliser"


class Faithful:
    """Looks at what a tokenizer made of a text."""

    def __init__(self, inner: tokenizers.Tokenizer, anchor: int) -> None:
        """`anchor`: a token in front of which decoding trims nothing."""
        self._inner, self._anchor = inner, anchor
        self._begin = inner.decode([anchor], skip_special_tokens=False)
        added = inner.get_added_tokens_decoder()
        self._added = {index: token.content for index, token in added.items()}
        self._taking = _taking(added.values())

    def rewritten(self, tokens: tokenizers.Encoding, text: str) -> str:
        """How the tokenizer itself changes a text, empty if its tokens say the text. Raises DataError for lost text.

        The blank that sentencepiece puts in front of a text is no change.
        """
        if self._inner.decode(tokens.ids, skip_special_tokens=False) == text:
            return ""
        if self._inner.decoder is None and "".join(tokens.tokens) == text:  # decoding would put blanks between them
            return ""
        found = dict.fromkeys(self._rewritten(*part) for part in self._parts(tokens, text))
        return ", ".join(filter(None, found))

    def offsets(self, tokens: tokenizers.Encoding, text: str) -> list[Span]:
        """The characters of each token, without the white space that an added token takes with it."""
        if self._taking is None:
            return tokens.offsets
        return [self._bare(token, text, *span) for token, span in zip(tokens.ids, tokens.offsets, strict=True)]

    def taker(self, text: str, span: Span) -> str | None:
        """The added token that takes white space of a part of a text with it (`lstrip`, `rstrip`); None if none does.

        Its tokens do not have that white space, so nothing learns or sees it.
        """
        for match in self._taking.finditer(text) if self._taking is not None else ():
            place = match.lastindex or 3
            for start, end in (match.span(place - 2), match.span(place)):
                if max(start, span[0]) < min(end, span[1]):
                    return match[place - 1]
        return None

    def _bare(self, token: int, text: str, start: int, end: int) -> Span:
        content = self._added.get(token)
        at = -1 if content is None else text.find(content, start, end)
        return (start, end) if content is None or at < 0 else (at, at + len(content))

    def _parts(self, tokens: tokenizers.Encoding, text: str) -> Iterator[tuple[list[int], str]]:
        """Ids and text of each piece between added tokens, and of an added token that was found in another spelling."""
        ids: list[int] = []
        begin = 0
        for token, (start, end) in zip(tokens.ids, tokens.offsets, strict=True):
            if token not in self._added:
                ids.append(token)
                continue
            yield ids, text[begin:start]
            if (spelt := text[start:end].strip()) != self._added[token].strip():
                yield [token], spelt
            ids, begin = [], end
        yield ids, text[begin:]

    def _rewritten(self, ids: list[int], text: str) -> str:
        said = self._inner.decode([self._anchor, *ids], skip_special_tokens=False).removeprefix(self._begin)
        if _same(said, text):
            return ""
        normaliser = self._inner.normalizer
        normal = text if normaliser is None else normaliser.normalize_str(text)
        if said.strip(" ") not in (normal.strip(" "), normal.replace(BLANK, " ").strip(" ")):
            raise DataError(_lost(text, said))
        return next((name for name, rewrite in REWRITES.items() if _same(said, rewrite(text))), OTHER)


def _same(said: str, text: str) -> bool:
    return said in (text, f" {text}")


def _lost(text: str, said: str) -> str:
    at = next((place for place, (a, b) in enumerate(zip(said, text, strict=False)) if a != b), len(said))
    there, here = (repr(side[max(0, at - 20) : at + 20]) for side in (text, said))
    return f"the tokenizer loses text: {there} would be read as {here}; change it in the data, or use another model"


def _taking(tokens: Iterable[tokenizers.AddedToken]) -> re.Pattern[str] | None:
    """Finds added tokens that take white space with them; the groups: what is in front, the token, what is behind."""
    found = sorted((token for token in tokens if token.lstrip or token.rstrip), key=lambda token: -len(token.content))
    sides = [(r"\s*" * t.lstrip, re.escape(t.content), r"\s*" * t.rstrip) for t in found]
    return re.compile("|".join(f"({left})({token})({right})" for left, token, right in sides)) if sides else None
