"""Why a chat template's rendering is not what a model could be taught, in words that name the way on."""

from __future__ import annotations

from tunix_rt.errors import DataError
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.trace import Span
from tunix_rt.traces.turn import around, last

ANOTHER = "use a model whose template does: model=qwen3_0_6b, qwen2_5_0_5b, smollm3_3b, llama3_2_1b"
"""Files of `conf/model` whose models' own templates show tools."""


def refuse_taken(tokenizer: Tokenizer, text: str, span: Span, who: str) -> None:
    """Raises DataError if an added token takes white space of the source's text at `span` with it."""
    token = tokenizer.taker(text, span)
    if token is not None:
        raise DataError(
            f"{who}: the tokenizer's token {token!r} takes the white space beside it (lstrip or rstrip in "
            f"tokenizer.json), so {last(text[slice(*span)])} would lose it: dataset.strip=true removes it in the data"
        )


def end_length(tokenizer: Tokenizer, rest: str, trail: str, calls: bool) -> int | None:
    """Up to where the end token goes in `rest`, the text after a previous turn; None if there is none.

    It follows the turn's own text, or the `trail` that the template puts between them (Llama 2's blank), or somewhere
    behind its `calls`.
    """
    blank = trail if rest.startswith(trail) else ""
    for token in tokenizer.end_tokens:
        place = rest.find(token) if calls else (len(blank) if rest.startswith(blank + token) else -1)
        if place >= 0:
            return place + len(token)
    return None


def other_end(tokenizer: Tokenizer, rest: str, own: str | None = None) -> str:
    """What `rest`, the text after an assistant's turn, begins with instead of an end token.

    `own`: with what the template ends the conversation's last turn, for a previous one.
    """
    ends = " and ".join(repr(token) for token in tokenizer.end_tokens)
    special = [token for token in tokenizer.special_tokens if rest.startswith(token)]
    if special:
        name = max(special, key=len)
        if own is not None and own != name:
            return (
                f"the chat template ends a previous turn with {name!r} and only the last with {own!r}, at which "
                "generation stops: learn the last turn alone (no weight for others, dataset.loss_weights."
                "previous_turns=0), or make a row of each turn"
            )
        return (
            f"the chat template ends the assistant's turn with {name!r}, but generation stops at {ends}: "
            f"model.stop_tokens=['{name}'] makes it stop there too"
        )
    return (
        f"the chat template writes no end token after the assistant's text ({last(rest[:20])} follows, generation "
        f"stops at {ends}): a model would never learn to stop; another template, or format=plain"
    )


def cause(tokenizer: Tokenizer, prefix: str, whole: str, text: str) -> str:
    """Why the template's rendering is not the prompt, the text and an end token."""
    rest = whole[len(prefix) :] if whole.startswith(prefix) else None
    if rest is not None and text in rest and text == text.strip():
        after = rest[rest.index(text) + len(text) :]
        end = next((token for token in tokenizer.end_tokens if after.lstrip().startswith(token)), None)
        return other_end(tokenizer, after) if end is None else _behind(end, after.lstrip()[len(end) :])
    if rest is not None and text.strip() in rest:
        return (
            f"the chat template trims white space at the ends of the assistant's text ({last(text)}): "
            "dataset.strip=true removes it in the data"
        )
    expected = prefix + text + tokenizer.end_token
    at = next((i for i, (a, b) in enumerate(zip(whole, expected, strict=False)) if a != b), len(whole))
    hint = "; its own prompt already closes <think>: format.variables" if "</think>" in prefix[-30:] else ""
    return (
        "the chat template does not continue its own prompt with the assistant's text and the end token: expected "
        f"{around(expected, at)}, got {around(whole, at)} (character {at}){hint}"
    )


def _behind(end: str, text: str) -> str:
    return (
        f"the chat template writes {last(text)} behind {end!r}, the end of the assistant's turn, where generation "
        "stops: no model could write it; take it out of the template (chat_template.jinja), or use format=plain"
    )
