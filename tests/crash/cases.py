"""Experiments of a second, the points at which they are killed, and the comparison with one that never was."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.forked import Forking
from tunix_rt import faults
from tunix_rt.backends.optimizers.registry import RULES

SIZE = (
    *("name=crash", "dataset=jsonl", "dataset.name=mine", "dataset.source.train.path=mine.jsonl"),
    *("dataset.split.validation=0.15", "dataset.split.test=0.3", "training=smoke", "training.max_steps=7"),
    *("training.global_batch_size=4", "training.packing=false", "training.evaluate_every=3"),
    *("schedule.warmup_steps=1", "hardware=cpu", "hardware.threads=1", "tracking=none", "generation.max_new_tokens=12"),
    *("generation.batch_size=4", "checkpoint.save_every=2", "checkpoint.log_every=4", "checkpoint.keep=1"),
)
LORA = (
    "tokenizer=pretrained",
    "model=from_path",
    "model.source.path=base",
    "model/adapter=lora",
    "model.adapter.rank=2",
)
AS_IT_IS = (*LORA[:3], "training.max_steps=0")
EARLY_STOP = ("training.max_steps=12", "training.early_stopping={metric: loss, patience: 1, min_delta: 9.0}")
BEST = ("training.select=best_loss", "optimizer.learning_rate=0.5")
PAIRS = ("objective=dpo",)
ROLLOUTS = (
    *("objective=dr_grpo", "objective.rollout.prompts_per_step=2", "objective.rollout.samples_per_prompt=3"),
    *("objective.rollout.max_new_tokens=4", "objective.rollout.updates=3", "objective.rollout.resample=1"),
    *("objective.reward.weights={format: 1.0, length: 0.5, answer: 1.0}", "objective.kl_coefficient=0.1"),
)
SAMPLING = ("generation=sample", "generation.num_return_sequences=2", "generation.max_new_tokens=12")

VARIANTS: dict[str, tuple[str, ...]] = {
    "float32": (),
    "bfloat16": ("backend.precision=bfloat16",),
    "accumulation": ("training.global_batch_size=8", "hardware.local_batch_size=4"),
    "packing": ("training.packing=true",),
    "shards": ("checkpoint.max_shard_size=50KB",),
    "lora": (*LORA, "model.adapter.dropout=0.2", "training.clip_norm=0.1"),
    "early stop": EARLY_STOP,
    "best": BEST,
    "sampling": (*SAMPLING, "generation.batch_size=4"),
    "as it is": AS_IT_IS,
    "pairs": PAIRS,
    "rollouts": (*LORA[:3], *ROLLOUTS, "training.select=best_reward", "evaluation.extract=[last_number]"),
}
"""Each kind of training and predicting on its own."""
JOINED: dict[str, tuple[str, ...]] = {
    "float32": VARIANTS["float32"],
    "bfloat16 accumulation packing": (
        *VARIANTS["bfloat16"],
        *VARIANTS["accumulation"],
        *VARIANTS["packing"],
        "generation.baseline=true",
    ),
    "lora sampling": (*VARIANTS["lora"], *VARIANTS["sampling"]),
    "early stop best pairs": (*EARLY_STOP, *BEST, *PAIRS),
}
"""The same in few experiments."""
SAMPLED = {"rollouts lora best": (*VARIANTS["rollouts"], *LORA)}
"""Three updates on each rollout, and checkpoints between them."""
OPTIMIZERS = {kind: (f"optimizer={kind}",) for kind in RULES if kind != "adamw"}
"""Those that the others leave out."""
RESULTS = "runs/crash/*"
COMPARED = (
    *("metrics.jsonl", "predictions.jsonl", "baseline_predictions.jsonl", "items.jsonl", "metrics.json"),
    *("scores.json", "baseline_items.jsonl", "baseline_metrics.json", "model/*", "plots/*", "figures/*"),
    "rollouts/*",
)
"""In the run folder; and all prepared data."""
ALIKE = {"scores.json": "metrics.json", "samples.jsonl": "timings.jsonl", "report.html": "report.md"}
"""Files that are written right before or after another one, in the same way."""
CLOCKS = ("stage_seconds", "seconds", "timings.jsonl", "report.md", "report.html")
"""Facts and files in which there are times."""


@dataclass(frozen=True)
class Point:
    """A fault point of a run: the stage it is in, and the words of `faults.POINT`."""

    stage: str
    name: str
    count: int

    @property
    def words(self) -> str:
        return f"{self.name}:{self.count}"

    @property
    def what(self) -> str:
        """Which kind of file it is about; of a stage as a whole, the moment."""
        moment, path = self.name.split(" ", 1)
        folder, _, file = path.rpartition("/")
        file = ALIKE.get(file, file.removeprefix("baseline_"))
        return moment if not folder else folder if folder in ("figures", "plots", "rollouts") else file


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run."""

    words: tuple[str, ...]
    folder: Path
    points: tuple[Point, ...]
    """All that it passed, in order."""
    seconds: float


@dataclass
class Laboratory:
    """Where experiments of one backend are run and killed: each in the same place, whose name some records hold."""

    forking: Forking
    folder: Path
    processes: int = 1
    """Of each run, started as by a launcher."""
    more: tuple[str, ...] = ()
    """Further words of each command line."""
    _base: Path | None = field(default=None, init=False)
    _references: dict[str, Reference] = field(default_factory=dict, init=False)

    @property
    def backend(self) -> str:
        return self.forking.backend

    @property
    def place(self) -> Path:
        return self.folder / "here"

    def reference(self, variant: str) -> Reference:
        """The uninterrupted run of a variant; run once."""
        if variant not in self._references:
            if self._base is None and variant != "float32":
                self._base = base_model(self.reference("float32"))
            self._references[variant] = self._run(variant, (VARIANTS | JOINED | SAMPLED | OPTIMIZERS)[variant])
        return self._references[variant]

    def _run(self, variant: str, changes: Sequence[str]) -> Reference:
        words = (f"backend={self.backend}", *SIZE, *changes, *self.more)
        self.clear()
        listed, started = self.place / "points", time.monotonic()
        assert self.run(words, {faults.LIST: str(listed)}) == 0, self.printed()
        seconds = time.monotonic() - started
        points, stage = [], "start"
        for line in listed.read_text("utf-8").splitlines():
            name, count = line.rsplit(":", 1)
            stage = name.removeprefix("begun ") if name.startswith("begun ") else stage
            points.append(Point(stage, name, int(count)))
        kept = self.folder / variant.replace(" ", "_")
        self.place.rename(kept)
        return Reference(words, kept, tuple(points), seconds)

    def run(self, words: Sequence[str], env: Mapping[str, str], kill_after: float | None = None) -> int:
        """Run the command line in `place`, where what earlier ones left is. Returns the exit code."""
        return self.forking.run(self.place, words, env, kill_after, self.processes)

    def clear(self) -> None:
        """A working directory with a file of traces, whose prompts differ in length, and a model to begin with."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        pairs = [(a, b) for a in (3, 17, 208) for b in range(2, 22)]
        lines = [
            {
                "trace_version": "1.0",
                "prompt": f"{a}+{b}=",
                "steps": [{"i": 0, "type": "step", "content": f"{a}+{b}={a + b}"}],
                "final_answer": str(a + b),
                "rejected": {"steps": [f"{a}+{b}={a + b + 1}"], "final_answer": str(a + b + 1)},
            }
            for a, b in pairs
        ]
        (self.place / "mine.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
        if self._base is not None:
            shutil.copytree(self._base, self.place / "base")

    def killed_at(self, variant: str, point: Point) -> list[str]:
        """Kill a run at `point`, and run it again; how what it leaves differs from the uninterrupted run."""
        found = self.stopped_at(variant, point, signal.SIGKILL)
        return found or self.resumed(variant)

    def stopped_at(self, variant: str, point: Point, number: int, *more: str) -> list[str]:
        """Begin anew, with `more` words, and give the process a signal at `point`."""
        words = (*self.reference(variant).words, *more)
        self.clear()
        code = self.run(words, {faults.POINT: f"{point.words}:{int(number)}"})
        expected = (-9, 4) if number == signal.SIGKILL else (128 + number,)  # 4: that of a process that follows
        return (
            []
            if code in expected[: self.processes]
            else [f"exit code {code} at {point.words}: {self.printed()[-800:]}"]
        )

    def killed_after(self, variant: str, seconds: float) -> list[str]:
        """The same, after some time; a run that ended before is compared all the same."""
        reference = self.reference(variant)
        self.clear()
        self.run(reference.words, {}, seconds)
        return self.resumed(variant)

    def resumed(self, variant: str) -> list[str]:
        """Run the same command again, and compare."""
        reference = self.reference(variant)
        code = self.run(reference.words, {})
        if code != 0:
            return [f"the same command again ends with {code}: {self.printed()[-800:]}"]
        return differences(reference.folder, self.place)

    def printed(self) -> str:
        """What the runs since `clear` printed."""
        log = self.place / "log"
        return log.read_text("utf-8") if log.exists() else ""


def base_model(reference: Reference) -> Path:
    """The start weights of a run: a small model folder."""
    (found,) = reference.folder.glob("data/mine/*/model")
    return found


def reduced(references: Mapping[str, Reference], whole: bool) -> list[tuple[str, Point]]:
    """(variant, point): of each kind of file once, chosen by chance, the same ones each time.

    What a backend has no part in (preparing, judging, reporting) is tried with one of them alone, the `whole` one.
    """
    groups: dict[str, list[tuple[str, Point]]] = defaultdict(list)
    for variant, reference in references.items():
        for point in reference.points:
            groups[point.what].append((variant, point))
    chance = random.Random(7)
    chosen = [chance.choice(groups[what]) for what in sorted(groups)]
    return [(variant, point) for variant, point in chosen if whole or point.stage in ("train", "predict")]


def differences(one: Path, other: Path) -> list[str]:
    """Every file of the results that is not the same to the last bit, and every fact of a stage."""
    (left,), (right,) = one.glob(RESULTS), other.glob(RESULTS)
    there, here = _files(one, left), _files(other, right)
    found = [f"{name}: only in one of them" for name in sorted(there.keys() ^ here.keys())]
    found += [
        f"{name}: {_first_difference(there[name], here[name])}"
        for name in sorted(there.keys() & here.keys())
        if there[name].read_bytes() != here[name].read_bytes()
    ]
    if _facts(left) != _facts(right):
        found.append(f"stages.json: {_facts(left)} there, {_facts(right)} here")
    return found


def _files(folder: Path, run: Path) -> dict[str, Path]:
    found = {file.relative_to(run).as_posix(): file for pattern in COMPARED for file in run.glob(pattern)}
    data = [file for file in (folder / "data").rglob("*") if file.is_file() and file.suffix != ".lock"]
    return found | {file.relative_to(folder).as_posix(): file for file in data}


def _facts(run: Path) -> dict[str, dict[str, object]]:
    stages = json.loads((run / "stages.json").read_text("utf-8"))
    for record in stages.values():
        for name in CLOCKS:
            record.pop(name, None)
            record.get("outputs", {}).pop(name, None)
    return dict(stages)


def _first_difference(one: Path, other: Path) -> str:
    left, right = one.read_bytes(), other.read_bytes()
    bits = sum((a ^ b).bit_count() for a, b in zip(left, right, strict=False))
    lines = zip(left.splitlines(), right.splitlines(), strict=False)
    line = next((number for number, (a, b) in enumerate(lines, start=1) if a != b), 0)
    return f"{len(left)} bytes there, {len(right)} here, {bits} bits differ, first in line {line}"
