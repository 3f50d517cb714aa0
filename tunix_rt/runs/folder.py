"""A run folder: where its files are, who may write, what is finished, and how users name it.

`runs/<experiment>/<identity>/`; nothing here knows what a stage does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Literal

from tunix_rt import faults, hints
from tunix_rt.errors import DataError, InputError, InUse
from tunix_rt.files import JsonObject, overwrite_json, read_json, read_record, write_json
from tunix_rt.runs.liveness import STALE, held, is_alive, is_local, seconds_since_heartbeat, this_process
from tunix_rt.runs.secrets import mask
from tunix_rt.terminal import say

State = Literal["running", "waiting", "finished", "failed", "interrupted"]
"""`waiting`: a stage is done, and another command will run the next one."""
VERSION = 2
"""`record_version` of `status.json` and `data.json`. Before it existed, a status named no host, and paths were
relative to the working directory; now they are relative to the file that contains them."""
PIPELINE = "dvc"
"""Name of the one run folder that DVC's stages share: DVC needs fixed paths."""


class _Located:
    """A file or folder of a run, in the folder where the stage that writes it was done; without a stage, in its own."""

    def __init__(self, name: str, stage: str | None = None) -> None:
        self._name, self._stage = name, stage

    def __get__(self, run: RunFolder, _: type[RunFolder]) -> Path:
        return (run.path if self._stage is None else run.place(self._stage)) / self._name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run, and its two small state files `stages.json` and `status.json`."""

    path: Path

    config = _Located("config.yaml")
    environment = _Located("environment.json")
    data = _Located("data.json", "prepare")
    """The manifest of the prepared data, and its location."""
    metrics_log = _Located("metrics.jsonl", "train")
    """Each step once."""
    timings_log = _Located("timings.jsonl", "train")
    checkpoints = _Located("checkpoints", "train")
    rollouts = _Located("rollouts", "train")
    """Folder of the answers that were learned from, a file for each step that sampled some (`traces/rollout.py`)."""
    model = _Located("model", "train")
    """Folder of the trained model."""
    predictions = _Located("predictions.jsonl", "predict")
    baseline_predictions = _Located("baseline_predictions.jsonl", "predict")
    greedy_predictions = _Located("greedy_predictions.jsonl", "predict")
    interventions = _Located("interventions.jsonl", "predict")
    """Completions that were changed and gone on with."""
    items = _Located("items.jsonl", "evaluate")
    metrics = _Located("metrics.json", "evaluate")
    baseline_metrics = _Located("baseline_metrics.json", "evaluate")
    baseline_items = _Located("baseline_items.jsonl", "evaluate")
    scores = _Located("scores.json", "evaluate")
    """The numbers of `metrics.json` that matter most, flat."""
    report = _Located("report.md")
    page = _Located("report.html")
    """The report as one page for a browser; older runs have none."""
    status_file = _Located("status.json")
    """Who works here; touched repeatedly while somebody does (`liveness.heartbeat`)."""

    @property
    def name(self) -> str:
        """`<experiment>/<identity>`: the name of the run in messages and commands."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def answers(self) -> tuple[Path, ...]:
        """The files of what models wrote, those included that this run does not have."""
        return self.predictions, self.baseline_predictions, self.greedy_predictions, self.interventions

    @property
    def root(self) -> Path:
        """The folder of all runs."""
        return self.path.parent if self.path.name == PIPELINE else self.path.parent.parent

    @property
    def identity(self) -> str:
        """Identity of the run: its folder name, or if that is fixed, what `status.json` says."""
        return str(self.status().get("identity") or self.path.name)

    @property
    def data_folder(self) -> Path:
        """Folder where its prepared data is, or was."""
        return folder_in(self.data, self.root)

    def place(self, stage: str) -> Path:
        """The folder that holds what a stage wrote: this one, one below it, or another run's.

        Raises InputError if the other run holds something else by now.
        """
        record = self.stages().get(stage, {})
        if "folder" not in record:
            return self.path
        place = (self.path / str(record["folder"])).resolve()
        there = RunFolder(place).stages().get(stage, {})
        if there.get("identity") != record.get("identity"):
            found = f"({there.get('identity', 'nothing')}, expected {record.get('identity')})"
            raise InputError(
                f"{self.name}: its stage {stage} was done in {os.path.relpath(place)}, which does not hold it any more "
                f"{found}; run it again, or bring it back (`dvc exp apply`, `dvc checkout`)"
            )
        return place

    def stages(self) -> dict[str, JsonObject]:
        """The record of each stage: `identity`, `state`, `folder` (relative, if another run did it)."""
        return read_record(self.path / "stages.json")

    def record_stage(self, stage: str, record: JsonObject) -> None:
        """Replace the record of one stage."""
        write_json(self.path / "stages.json", self.stages() | {stage: record})

    def data_hashes(self) -> JsonObject:
        """`sources` (what the config names), `prepared` (each file), `start_model`; empty if none are recorded."""
        hashes = read_record(self.data).get("hashes") or read_record(self.environment).get("data")
        return dict(hashes or {})

    def read_config(self) -> JsonObject:
        """The recorded config as plain data, secrets masked; empty before it exists. Raises DataError."""
        from omegaconf import OmegaConf
        from yaml import YAMLError

        if not self.config.exists():
            return {}
        try:
            config = OmegaConf.to_container(OmegaConf.load(self.config), resolve=False)
        except (YAMLError, UnicodeDecodeError) as error:
            raise DataError(f"{self.config}: not readable YAML ({error})") from None
        if not isinstance(config, dict):
            raise DataError(f"{self.config}: expected a mapping of sections")
        return {str(key): value for key, value in config.items()}

    def is_done(self, stage: str, identity: str) -> bool:
        """Whether this folder holds (or refers to) the finished stage of that identity."""
        record = self.stages().get(stage, {})
        return record.get("identity") == identity and record.get("state") == "done"

    def status(self) -> JsonObject:
        """`status.json`; empty before the first start. If its process is dead, `running` becomes `killed`."""
        status = read_record(self.status_file)
        if status.get("state") == "running" and not is_alive(status, self.status_file):
            status["state"] = "killed"
        return status

    def check_finished(self, what: str) -> None:
        """Raises InputError if there is no result yet, so no `what`: "model to register", "result to export"."""
        if self.status().get("state") != "finished":
            raise InputError(f"{self.name}: not finished, so there is no {what}; run its command again")

    def begin(self, known_by: JsonObject | None = None) -> None:
        """Record that this process works here; `known_by`: `identity` and `key` if its name says neither."""
        status = {"record_version": VERSION, "state": "running", **this_process(), "started": time.time()}
        empty: JsonObject = {"ended": None, "stage": None, "reason": None, "exit_code": None}
        write_json(self.status_file, status | empty | (known_by or {}))

    def note_stage(self, stage: str) -> None:
        """Record which stage is running."""
        write_json(self.status_file, dict(read_json(self.status_file)) | {"stage": stage})

    def end(self, state: State, reason: str | None = None, exit_code: int = 0) -> None:
        """Record how the work ended; secrets in `reason` are masked."""
        status = dict(read_json(self.status_file))
        said = None if reason is None else mask(reason)
        end: JsonObject = {"state": state, "ended": time.time(), "reason": said, "exit_code": exit_code}
        with nullcontext() if state == "finished" else suppress(OSError):  # the original error is raised, not this one
            overwrite_json(self.status_file, status | end)

    @contextmanager
    def locked(self, patient: bool = False) -> Iterator[None]:
        """Claim the folder for this process. Raises InUse if another one has it, on any host.

        `patient`: a process on another host with a recent heartbeat may still be dead; wait for its next heartbeat.
        """
        with held(self.path / ".lock", lambda: self._in_use(f" (pid {self.status().get('pid', 'unknown')})")):
            while (other := self._elsewhere()) is not None:
                if not patient or not _falls_silent(self.status_file, f"{self.name}: {other}"):
                    raise InUse(self._in_use(f" ({other})"))
            faults.point("locked", self.path)
            yield

    def _elsewhere(self) -> str | None:
        """Who works here from another host, where a lock may have no effect."""
        status = self.status()
        if status.get("state") != "running" or is_local(status):
            return None
        ago = seconds_since_heartbeat(self.status_file)
        return f"pid {status['pid']} on {status['host']}, last heartbeat {ago:.0f} s ago"

    def _in_use(self, by: str) -> str:
        return f"{self.path}: in use by another process{by}; wait for it, or start another with run.new=true"


def _falls_silent(file: Path, who: str) -> bool:
    """Whether a heartbeat stops; returns as soon as it is known."""
    before = file.stat().st_mtime_ns
    say(f"{who}; waiting up to {STALE:.0f} s to see whether it still works")
    while file.stat().st_mtime_ns == before:
        if seconds_since_heartbeat(file) >= STALE:
            return True
        time.sleep(1)
    return False


def folder_in(file: Path, root: Path) -> Path:
    """The folder of prepared data that a `data.json` below the folder `root` of all runs names."""
    record = read_json(file)
    places = [file.parent] if "record_version" in record else [Path(), root.resolve().parent]
    folders = [(place / str(record["folder"])).resolve() for place in places]
    return from_here(next((folder for folder in folders if folder.is_dir()), folders[0]))


def from_here(path: Path) -> Path:
    """An absolute path as displayed: relative to the working directory if it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def all_runs(root: Path) -> list[RunFolder]:
    """Every run below `root`, oldest start first."""
    files = [*root.glob("*/*/status.json"), *root.glob(f"{PIPELINE}/status.json")]
    found = [RunFolder(file.parent) for file in files]
    return sorted(found, key=lambda run: (float(run.status().get("started", 0.0)), run.name))


def choose(root: Path, experiment: str, identity: str, new: bool) -> RunFolder:
    """The folder of an identity: an existing one, or with `new` the first free `<identity>-<k>`."""
    names = chain([identity], (f"{identity}-{number}" for number in count(2)))
    folders = (RunFolder(root / experiment / name) for name in names)
    return next(folder for folder in folders if not (new and folder.path.exists()))


def find_done(root: Path, experiment: str, stage: str, identity: str) -> Iterator[RunFolder]:
    """The runs of the experiment in whose own folder the stage of this identity is finished."""
    for run in all_runs(root):
        record = run.stages().get(stage, {})
        if run.path.parent.name == experiment and run.is_done(stage, identity) and "folder" not in record:
            yield run


def find_run(root: Path, word: str, newest: bool = True) -> RunFolder:
    """The run that a user means: `last`, a path, `<experiment>/<identity>` or a prefix of either part.

    Raises InputError listing the candidates if none or several match. A run's full name comes first. An experiment's
    name means its newest run (with a note if there are several); without `newest`, it matches all of them.
    """
    if (Path(word) / "status.json").exists():
        return RunFolder(Path(word).resolve())
    runs = all_runs(root)
    if not runs:
        raise InputError(f"{root}: no run there yet; start one: {hints.tunix_rt('+experiment=quickstart')}")
    if word == "last":
        return runs[-1]
    exact = [run for run in runs if word in (run.name, run.path.name)]
    named = [run for run in runs if run.path.parent.name == word]
    if newest and len(named) > 1 and not exact:
        say(f"{word!r} names {len(named)} runs; taking the newest: {named[-1].name}")
        named = named[-1:]
    close = [run for run in runs if run.name.startswith(word) or run.path.name.startswith(word)]
    fitting = exact or named or close
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(run.name for run in (fitting or runs)[-10:])
    problem = "several runs fit" if fitting else "no such run"
    raise InputError(f"run {word!r}: {problem} (there are: {listed})")
