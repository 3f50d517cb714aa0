"""One sampled answer that was learned from, and its line in `rollouts/step_00000010.jsonl`. No clock values.

Beside each file is its seal, `step_00000010.sha256`: what training goes on with has to be what it wrote.
`sha256sum --check *.sha256` compares them, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, read_jsonl, sha256_file, sync_folder, write_jsonl, write_text

LISTS = ("steps", "ids", "logprobs")


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sample of one prompt, its reward, and what its tokens weigh."""

    id: str
    sample: int
    prompt: str
    """As formatted text."""
    reference: str
    """The trace's final answer."""
    completion: str
    """Everything the model wrote, without the end token."""
    answer: str | None
    """As the format reads it; None: the completion is not in the format (malformed)."""
    steps: tuple[str, ...]
    finish_reason: Literal["stop", "length"]
    ids: tuple[int, ...]
    """Every sampled token, the stop token included: it is learned too."""
    logprobs: tuple[float, ...]
    """The sampler's log-probability of each, natural logarithm; exact as float32."""
    reward: float
    rewards: dict[str, float]
    """Each component of the reward, by name, before it is weighted."""
    advantage: float
    """0: nothing is learned from it."""
    mismatch: float | None = None
    """The largest |sampler − trainer| of its log-probabilities; None: not compared."""

    @property
    def key(self) -> tuple[str, int]:
        """What distinguishes it from the others of its step."""
        return self.id, self.sample

    @property
    def num_new_tokens(self) -> int:
        """Tokens of the answer, the stop token not counted: as in predictions."""
        return len(self.ids) - (self.finish_reason == "stop")

    def to_json(self) -> JsonObject:
        """The record as written."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # not asdict, which copies every token


def exact(logprobs: Sequence[float] | np.ndarray[Any, np.dtype[np.float32]]) -> tuple[float, ...]:
    """float32 values as the shortest decimals that are read as the same float32."""
    return tuple(float(str(value)) for value in np.asarray(logprobs, np.float32))


def rollouts_file(folder: Path, step: int) -> Path:
    """The file of the rollouts that the update of `step` (from 1) is the first to learn from."""
    return folder / f"step_{step:08d}.jsonl"


def rollout_steps(folder: Path) -> list[int]:
    """The steps that have a file in the folder, ascending; none if there is no folder."""
    return sorted(int(file.stem.removeprefix("step_")) for file in folder.glob("step_*.jsonl"))


def write_rollouts(path: Path, rollouts: Sequence[Rollout]) -> None:
    """Write the rollouts of a step, whole or not at all, and their seal; they are on the disk when this returns."""
    write_jsonl(path, (rollout.to_json() for rollout in rollouts))
    write_text(_seal(path), _sum_line(path))
    sync_folder(path.parent)


def check_seal(path: Path) -> None:
    """Raises DataError: a file of rollouts is missing, or not what `write_rollouts` wrote, to the last byte."""
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not _seal(path).exists():
        raise DataError(f"{path}: not written to the end ({_seal(path).name}, its sha256, is missing)")
    if _seal(path).read_bytes() != _sum_line(path).encode():
        raise DataError(f"{path}: changed since it was written (its sha256 is not that of {_seal(path).name})")


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _sum_line(path: Path) -> str:
    """As `sha256sum` prints it."""
    return f"{sha256_file(path)}  {path.name}\n"


def read_rollouts(path: Path) -> list[Rollout]:
    """The rollouts of a file, prompt by prompt, sample by sample. Raises DataError: it is missing or damaged."""
    return [_rollout(record, f"{path}:{number}") for number, record in read_jsonl(path)]


def _rollout(record: JsonObject, where: str) -> Rollout:
    try:
        return Rollout(**record | {key: tuple(record[key]) for key in LISTS})
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: not a rollout ({error})") from None
