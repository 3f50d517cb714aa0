"""A completion whose steps were changed and that the model went on with, and its line in `interventions.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from tunix_rt.config.results import InterventionKind
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, read_appended
from tunix_rt.traces.prediction import Prediction, prediction_of


@dataclass(frozen=True, slots=True)
class Intervention:
    """What was changed, and what came of it. Only first samples are changed."""

    kind: InterventionKind
    k: int
    """`truncated` and `filler`: how many steps were kept; `corrupted`: which step, from 0."""
    num_steps: int
    """Of the completion as the model wrote it."""
    given: str
    """The text that the model went on from, without the prompt."""
    original: str | None
    """`corrupted`: the number that was changed, as it was written."""
    replacement: str | None
    """What it was changed to."""
    prediction: Prediction
    """The whole completion, `given` included; log-probabilities are not kept."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from others."""
        return self.prediction.id, self.kind, self.k

    @property
    def finish_reason(self) -> Literal["stop", "length", "error"]:
        """How the model ended."""
        return self.prediction.finish_reason

    @property
    def error(self) -> str | None:
        """Why there is no answer, if it failed."""
        return self.prediction.error

    def to_json(self) -> JsonObject:
        """The record as written to `interventions.jsonl`."""
        own = {name: getattr(self, name) for name in _OWN}
        return {"id": self.prediction.id, **own, **asdict(self.prediction)}


_OWN = tuple(field.name for field in fields(Intervention) if field.name != "prediction")


def intervention_of(record: JsonObject, where: str) -> Intervention:
    """The intervention that a line holds. Raises DataError, which begins with `where`."""
    try:
        own = {name: record[name] for name in _OWN}
    except KeyError as error:
        raise DataError(f"{where}: not a record of an intervention ({error})") from None
    rest = {name: value for name, value in record.items() if name not in own}
    return Intervention(**own, prediction=prediction_of(rest, where))


def read_interventions(path: Path) -> Iterator[Intervention]:
    """The interventions of a file, in order; none if there is no file."""
    for number, record in read_appended(path):
        yield intervention_of(record, f"{path}:{number}")
