"""How far a run of any process is, read from its folder while it grows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from tunix_rt.files import JsonObject, read_appended, read_record
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import whole_lines
from tunix_rt.runs.sessions import planned_steps

SAMPLES = "samples.jsonl"
"""Answers to a few validation prompts while training, beside the log: step, prompt, completion, correct."""
LEARNED = {"rollout/reward": "reward", "preference/accuracy": "preferred"}
"""Metric → its name, of what says most about an objective other than `sft`."""
WINDOW = 30.0
"""Seconds over which a rate is measured."""
MEANINGFUL = 2.0
"""Seconds before a rate is shown."""
BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a run has done so far."""

    run: str
    state: str
    stage: str | None
    reason: str | None
    unit: str = ""
    """What the stage counts: `steps` or `answers`; empty if it counts nothing."""
    done: int = 0
    total: int | None = None
    rate: float | None = None
    """Units per second, once it is known."""
    loss: list[tuple[int, float]] = field(default_factory=list)
    """Training loss by step."""
    learned: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """What an objective other than `sft` makes large (`LEARNED`), by step."""
    validation: JsonObject = field(default_factory=dict)
    """The last evaluation while training: `step`, `eval/loss`, `eval/accuracy`."""
    samples: list[JsonObject] = field(default_factory=list)
    """Its answers."""

    @property
    def seconds_left(self) -> float | None:
        """Of the stage."""
        return None if not self.rate or self.total is None else max(self.total - self.done, 0) / self.rate


class RunWatch:
    """Reads a run again and again; of its logs only what is new."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._offsets: dict[Path, int] = {}
        self._loss: dict[int, float] = {}
        self._learned: dict[str, dict[int, float]] = {}
        self._times: list[tuple[float, int]] = []
        """Unix seconds, and the last step then."""
        self._validation: JsonObject = {}
        self._counted: dict[Path, list[tuple[float, int]]] = {}
        """Of a file of answers: when it was looked at, and how many answers it had."""

    def look(self) -> Snapshot:
        """The run as it is now. Raises DataError if a record is damaged."""
        status = self.run.status()
        self._read_logs()
        stage = status.get("stage")
        counts: JsonObject = {"train": self._training, "predict": self._predicting}.get(str(stage), dict)()
        counts["learned"] = {name: sorted(values.items()) for name, values in self._learned.items()}
        counts |= {"loss": sorted(self._loss.items()), "validation": self._validation, "samples": self._samples()}
        return Snapshot(self.run.name, str(status.get("state")), stage, status.get("reason"), **counts)

    def _read_logs(self) -> None:
        for _, line in self._new(self.run.metrics_log):
            if "train/loss" in line:
                self._loss[int(line["step"])] = float(line["train/loss"])
                for metric in LEARNED.keys() & line.keys():
                    self._learned.setdefault(LEARNED[metric], {})[int(line["step"])] = float(line[metric])
            else:
                self._validation = line
        for _, line in self._new(self.run.timings_log):
            self._times.append((float(line.get("time", 0.0)), int(line["step"])))

    def _new(self, file: Path) -> list[tuple[int, JsonObject]]:
        found = list(whole_lines(file, self._offsets.get(file, 0)))
        if found:
            self._offsets[file] = found[-1][0]
        return found

    def _training(self) -> JsonObject:
        done = max(self._loss, default=0)
        return {"unit": "steps", "done": done, "total": planned_steps(self.run), "rate": _rate(self._times)}

    def _predicting(self) -> JsonObject:
        """Answers of the model before training are a pass of their own, which comes first."""
        generation = self.run.read_config().get("generation", {})
        split = read_record(self.run.data).get("splits", {}).get(generation.get("split"), {})
        total = split["count"] * int(generation.get("num_return_sequences", 1)) if "count" in split else None
        file = self.run.predictions if self.run.predictions.exists() else self.run.baseline_predictions
        seen = self._counted.setdefault(file, [])
        seen.append((time.time(), _lines(file)))
        return {"unit": "answers", "done": seen[-1][1], "total": total, "rate": _rate(seen)}

    def _samples(self) -> list[JsonObject]:
        step, file = self._validation.get("step"), self.run.metrics_log.with_name(SAMPLES)
        if step is None or not file.exists():
            return []
        return list({line["id"]: line for _, line in read_appended(file) if line["step"] == step}.values())


def _rate(seen: list[tuple[float, int]]) -> float | None:
    """Units per second over the last `WINDOW` seconds; None until it is meaningful."""
    if not seen:
        return None
    now, done = seen[-1]
    begun, before = next((then, count) for then, count in seen if now - then <= WINDOW)
    return (done - before) / (now - begun) if now - begun >= MEANINGFUL and done > before else None


def _lines(file: Path) -> int:
    if not file.exists():
        return 0
    with file.open("rb") as content:
        return sum(block.count(b"\n") for block in iter(lambda: content.read(BLOCK), b""))
