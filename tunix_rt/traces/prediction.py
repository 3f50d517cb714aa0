"""One answer of the model as a record, and its line in `predictions.jsonl`. No clock values: it is reproducible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, read_appended


@dataclass(frozen=True, slots=True)
class Prediction:
    """One sample of one prompt; `finish_reason="error"` where it failed, with the reason in `error`."""

    id: str
    sample: int
    prompt: str
    reference: str
    """The trace's final answer."""
    completion: str
    """Everything the model wrote, the end token excluded."""
    steps: tuple[str, ...]
    answer: str | None
    """None: the completion is not in the format (malformed)."""
    finish_reason: Literal["stop", "length", "error"]
    error: str | None
    num_prompt_tokens: int
    num_new_tokens: int
    logprobs: tuple[float, ...]
    """Of each new token, natural logarithm, rounded to 6 digits."""

    def to_json(self) -> JsonObject:
        """The record as written to `predictions.jsonl`."""
        return asdict(self) | {"steps": list(self.steps), "logprobs": list(self.logprobs)}


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Predictions of a file, in its order, without a line that was torn. Raises DataError where it is missing."""
    if not path.exists():
        raise DataError(f"{path}: no such file")
    for number, record in read_appended(path):
        try:
            values = dict(record) | {"steps": tuple(record["steps"]), "logprobs": tuple(record["logprobs"])}
            yield Prediction(**values)
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: not a prediction record ({error})") from None
