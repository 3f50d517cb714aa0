"""The answers of a run with their verdicts, and a selection of them: the wrong ones, one prompt's, those of a slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.prediction import Prediction, read_items, read_predictions, verdict


@dataclass(frozen=True, slots=True)
class Answer:
    """One sample of one prompt, and its line of `items.jsonl` (empty before it is evaluated)."""

    prediction: Prediction
    item: JsonObject

    @property
    def right(self) -> bool | None:
        """The verdict; None if there is none: not evaluated yet, or no reference to compare with."""
        return verdict(self.item)

    def to_json(self) -> JsonObject:
        """Both records as one."""
        return self.item | self.prediction.to_json()


def answers(run: RunFolder) -> Iterator[Answer]:
    """Every answer in the order of the predictions. Raises DataError if there are none yet, or a file is damaged."""
    items = {(item["id"], item["sample"]): item for item in read_items(run.items)}
    for prediction in read_predictions(run.predictions):
        yield Answer(prediction, items.get((prediction.id, prediction.sample), {}))


def of_prompt(found: list[Answer], identity: str) -> list[Answer]:
    """The samples of the prompt with this id, or with an id that begins so.

    Raises InputError if no prompt has it, or several do.
    """
    ids = list(dict.fromkeys(answer.prediction.id for answer in found))
    fitting = [known for known in ids if known == identity] or [known for known in ids if known.startswith(identity)]
    if len(fitting) != 1:
        problem = f"{len(fitting)} prompts have" if fitting else "no prompt has"
        raise InputError(
            f"{problem} an id that begins with {identity!r} (ids are {', '.join((fitting or ids)[:3])}, …)"
        )
    return [answer for answer in found if answer.prediction.id == fitting[0]]


def of_slice(found: list[Answer], key: str, value: str) -> list[Answer]:
    """The answers whose trace has this meta value. Raises InputError naming the slices that there are."""
    slices = sorted({pair for answer in found for pair in answer.item.get("slices", {}).items()})
    if (key, value) not in slices:
        known = ", ".join(f"{name}={content}" for name, content in slices[:20])
        raise InputError(f"no answer is in the slice {key}={value}; there are: {known or 'none (evaluation.slices)'}")
    return [answer for answer in found if answer.item.get("slices", {}).get(key) == value]
