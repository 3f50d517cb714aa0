"""A sweep's folder, among the runs of its experiment: what is swept, the state of each member, how it ended.

`<root>/<experiment>/sweep-<identity>/`. A member writes its own record here, wherever a launcher runs it, so that all
launchers report alike; a file named `stop` asks all members to end. Independent of launchers and MLflow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Literal
from uuid import uuid4

from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject, digest, read_json, read_record, write_json, write_text
from tunix_rt.runs import liveness
from tunix_rt.runs.folder import RunFolder, from_here
from tunix_rt.runs.secrets import mask_values

MemberState = Literal["planned", "running", "finished", "pruned", "failed", "interrupted"]
RECORD = "sweep.json"
"""File of a sweep's folder that says what it is."""
REQUEST = ".config.json"
"""How the name of the config ends that a member in its own process is given."""
MEMBERSHIP = "sweep.json"
"""File in a member's run folder that says which sweep it belongs to."""


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """The state of one member; `planned`: neither finished by an earlier command nor begun by this one."""

    overrides: tuple[str, ...]
    state: MemberState
    folder: str | None
    """Its run folder; None if its config is wrong."""
    reason: str | None = None
    """Why it failed, was pruned or interrupted."""
    pid: int = 0
    """The process that does the work."""

    @property
    def key(self) -> str:
        """Its name in the sweep's folder."""
        return key_of(self.overrides)

    @property
    def values(self) -> dict[str, str]:
        """Its overrides, `optimizer.learning_rate` → `1e-3`."""
        return dict(text.lstrip("+").split("=", 1) for text in self.overrides if "=" in text)

    @property
    def run(self) -> RunFolder:
        """Its run folder, if its config is right."""
        assert self.folder is not None, self.reason
        return RunFolder(Path(self.folder))


def key_of(overrides: Sequence[str]) -> str:
    """The name of the member with these overrides."""
    return digest(list(overrides))[:12]


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """Paths of one sweep, its `sweep.json` and the records of its members."""

    path: Path

    @property
    def name(self) -> str:
        """`<experiment>/sweep-<identity>`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def identity(self) -> str:
        return self.path.name.removeprefix("sweep-")

    @property
    def ranking(self) -> Path:
        return self.path / "ranking.json"

    @property
    def study(self) -> Path:
        """Optuna's trials, if it searches."""
        return self.path / "study.db"

    @property
    def stop_file(self) -> Path:
        return self.path / "stop"

    def log(self, key: str) -> Path:
        """The output of a member in its own process."""
        return self.path / "members" / f"{key}.log"

    def request(self, key: str) -> Path:
        """The config passed to such a member."""
        return self.path / "members" / f"{key}{REQUEST}"

    def figures(self) -> list[Path]:
        return sorted(self.path.glob("*.png"))

    def status(self) -> JsonObject:
        """`sweep.json`; empty before the first start."""
        return read_record(self.path / RECORD)

    def begin(self, facts: JsonObject) -> None:
        """Record that this process sweeps here. The `key` created at the first start identifies this folder."""
        known = self.status()
        self.stop_file.unlink(missing_ok=True)
        kept = {"started": known.get("started", time.time()), "key": known.get("key", uuid4().hex)}
        record = facts | liveness.this_process() | {"state": "running", "ended": None} | kept
        write_json(self.path / RECORD, record)

    def end(self, state: Literal["finished", "failed", "interrupted"]) -> None:
        """Record how it ended."""
        write_json(self.path / RECORD, self.status() | {"state": state, "ended": time.time()})

    def write(self, record: MemberRecord) -> None:
        """Replace a member's record."""
        shown = mask_values({name: getattr(record, name) for name in ("state", "reason", "pid")})
        place = {"folder": self._relative(record.folder)}
        write_json(self._record(record.key), {"overrides": list(record.overrides), **shown, **place})

    def write_ranking(self, lines: Sequence[JsonObject]) -> None:
        """Write the ranked members; each has its run folder as `folder`."""
        write_json(self.ranking, [line | {"folder": self._relative(line["folder"])} for line in lines])

    def _relative(self, folder: str | None) -> str | None:
        """A member's run folder, relative to this one: sweep and runs can be moved together."""
        return None if folder is None else os.path.relpath(Path(folder).resolve(), self.path.resolve())

    def _from_here(self, folder: str | None) -> str | None:
        """The inverse; earlier versions wrote it relative to the working directory."""
        if folder is None:
            return None
        found = (self.path / folder).resolve()
        return str(from_here(found)) if found.parent.is_dir() else folder

    def read(self, key: str) -> MemberRecord | None:
        """A member's record; None before it has begun."""
        file = self._record(key)
        if not file.exists():
            return None
        found = read_json(file)
        folder = self._from_here(found["folder"])
        return MemberRecord(**(found | {"overrides": tuple(found["overrides"]), "folder": folder}))

    def records(self) -> list[MemberRecord]:
        """The records of the members that have begun. The configs of those in processes of their own lie beside."""
        files = sorted((self.path / "members").glob("*.json"))
        found = (self.read(file.stem) for file in files if not file.name.endswith(REQUEST))
        return [record for record in found if record is not None]

    def forget(self, key: str) -> None:
        """Remove the record of a member that is to run again."""
        self._record(key).unlink(missing_ok=True)

    def heartbeat(self, key: str) -> None:
        """Show that a running member is still supervised."""
        if (file := self._record(key)).exists():
            os.utime(file)

    def seconds_since_heartbeat(self, key: str) -> float:
        """Seconds since the last heartbeat."""
        file = self._record(key)
        return liveness.seconds_since_heartbeat(file) if file.exists() else 0.0

    def _record(self, key: str) -> Path:
        return self.path / "members" / f"{key}.json"

    def ask_to_stop(self, why: str) -> None:
        """Ask every member to end, and waiting ones not to begin."""
        if not self.stop_file.exists():
            write_text(self.stop_file, why)

    def asked_to_stop(self) -> str | None:
        """The reason, if somebody asked to stop."""
        return self.stop_file.read_text("utf-8") if self.stop_file.exists() else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Claim the folder for this process. Raises MachineError if another one has it."""
        (self.path / "members").mkdir(parents=True, exist_ok=True)
        with liveness.held(
            self.path / ".lock",
            lambda: f"{self.path}: this sweep runs already (pid {self.status().get('pid', 'unknown')}); wait for it",
        ):
            yield


def sweep_of(run: RunFolder) -> SweepFolder | None:
    """The sweep that a run is a member of; None if there is none."""
    file = run.path / MEMBERSHIP
    if not file.exists():
        return None
    sweep = SweepFolder((run.path / str(read_json(file)["folder"])).resolve())
    return sweep if sweep.status() else None


def find_sweep(root: Path, word: str) -> SweepFolder | None:
    """The sweep that a user means: a path, `<experiment>/sweep-<identity>`, `sweep-<identity>` or a prefix that holds
    `sweep-`; None if the word names none. Raises InputError if it names several.
    """
    if "sweep-" not in word:
        return None
    files = [Path(word) / RECORD]
    if not Path(word).is_absolute():
        files += [file for pattern in ("", "*/") for file in root.glob(f"{pattern}{escape(word)}*/{RECORD}")]
    found = {file.parent.resolve(): SweepFolder(file.parent) for file in files if file.is_file()}
    if len(found) > 1:
        raise InputError(f"{word!r} names {len(found)} sweeps: {', '.join(sweep.name for sweep in found.values())}")
    return next(iter(found.values()), None)
