"""One answer of the model as a record, and its line in `predictions.jsonl`. No clock values, so it is reproducible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, read_appended, read_jsonl

NO_REFERENCE = "no reference"
"""The reason in `items.jsonl` of an answer that has nothing to be compared with."""
VERDICT = ("id", "sample", "correct", "reason")
"""What every line of `items.jsonl` has."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One sample of one prompt; `finish_reason="error"` if it failed, with the reason in `error`."""

    id: str
    sample: int
    prompt: str
    reference: str
    """The trace's final answer."""
    completion: str
    """Everything the model wrote, without the end token."""
    steps: tuple[str, ...]
    answer: str | None
    """None: the completion is not in the format (malformed)."""
    finish_reason: Literal["stop", "length", "error"]
    error: str | None
    num_prompt_tokens: int
    num_new_tokens: int
    logprobs: tuple[float, ...]
    """Log-probability of each new token, natural logarithm, rounded to 6 digits."""
    token_ends: tuple[int, ...] = ()
    """For each new token the number of characters of `completion` that are written when it is down; a token that only
    begins a character adds 0. Empty in older files."""

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from others."""
        return self.id, self.sample

    def to_json(self) -> JsonObject:
        """The record as written to `predictions.jsonl`."""
        return asdict(self)


def prediction_of(record: JsonObject, where: str) -> Prediction:
    """The prediction that a line holds. Raises DataError, which begins with `where`."""
    try:
        lists: JsonObject = {key: tuple(record[key]) for key in ("steps", "logprobs", "token_ends") if key in record}
        return Prediction(**(record | lists))
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: not a prediction record ({error})") from None


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Predictions of a file, in order, skipping a truncated line. Raises DataError if the file is missing."""
    if not path.exists():
        raise DataError(f"{path}: no such file")
    for number, record in read_appended(path):
        yield prediction_of(record, f"{path}:{number}")


def read_if_there(path: Path) -> list[Prediction]:
    """Predictions of a file that not every run has; none if there is no file."""
    return list(read_predictions(path)) if path.exists() else []


def verdict(item: JsonObject) -> bool | None:
    """Whether a line of `items.jsonl` says that the answer is right; None: no verdict, or no reference to judge by."""
    return None if item.get("reason") in (None, NO_REFERENCE) else bool(item["correct"])


def renamed(item: JsonObject) -> JsonObject:
    """A line of `items.jsonl` in the current form; older lines call `step_checks` `steps`."""
    checks = item.get("steps")
    return item if checks is None else {key: item[key] for key in item if key != "steps"} | {"step_checks": checks}


def read_items(path: Path) -> Iterator[JsonObject]:
    """The lines of `items.jsonl`, in order; none if there is no file. Raises DataError: a line is damaged."""
    for number, item in read_jsonl(path) if path.exists() else ():
        if missing := [name for name in VERDICT if name not in item]:
            raise DataError(f"{path}:{number}: not a verdict on an answer: {', '.join(missing)} is missing")
        yield renamed(item)
