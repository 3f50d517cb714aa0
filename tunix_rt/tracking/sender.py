"""What of a run folder MLflow has, and the next thing it gets; at the end both are counted and compared.

`tracking.json` in the run folder remembers what was taken (byte offsets, digests), after each success: a
follower that is killed, or a store that goes away, repeats at most one thing, and repeating is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, digest, read_json, sha256_file, write_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.secrets import mask, mask_values
from tunix_rt.runs.sweep import sweep_of
from tunix_rt.tracking import content
from tunix_rt.tracking.content import MAX_PARAM
from tunix_rt.tracking.mlflow import LONG_PARAMS, TABLE, MlflowRun, Status
from tunix_rt.tracking.sweep import PARENT, parent_run
from tunix_rt.tracking.tail import METRICS, SYSTEM, TIMINGS, Point, RunLogs
from tunix_rt.tracking.uri import resolve

STATE = "tracking.json"
FILES = ("stages.json", "environment.json", "data.json", "metrics.json", "baseline_metrics.json", "report.md")
DIFF = "git.diff"
ENDED: tuple[Status, ...] = ("FINISHED", "FAILED", "KILLED")
"""Not SCHEDULED: the results of a run that waits for its next stage are still to come."""


@dataclass(frozen=True, slots=True)
class FollowReport:
    """What the files hold (`expected`), what the store has of it (`sent`), both by kind of thing."""

    status: Status
    run_id: str | None
    """In MLflow; None where the store was never reached."""
    sent: dict[str, int]
    expected: dict[str, int]
    complete: bool
    message: str
    """One line for a person."""


@dataclass(slots=True)
class Sent:
    """The contents of `tracking.json`."""

    path: Path
    key: str
    """Made with this file and sent as a tag: the run is found by it although its id could not be kept any more."""
    directory: str
    """Working directory when the run was first followed: where a relative SQLite file is, ever after."""
    store: str = ""
    run_id: str | None = None
    offsets: dict[str, int] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    """Digest of each thing that was taken, by its name."""
    report: JsonObject | None = None

    @classmethod
    def load(cls, path: Path, directory: Path | None = None) -> Sent:
        """Read the file, or begin a new one, in the present working directory where no other is given."""
        if not path.exists():
            return cls(path=path, key=uuid4().hex, directory=str(directory or Path.cwd()))
        recorded: Mapping[str, Any] = read_json(path)
        return cls(path=path, **recorded)

    def save(self) -> None:
        """Write the file, whole or not at all."""
        write_json(self.path, {key: value for key, value in asdict(self).items() if key != "path"})

    def belong_to(self, store: str, run_id: str | None) -> None:
        """Forget everything that was sent to another store or run."""
        if (store, run_id) != (self.store, self.run_id):
            self.store, self.run_id, self.offsets, self.done = store, run_id, {}, {}
            self.save()


class Sender:
    """Sends one run. `say` takes lines for a person; a store's failures pass through (see `store_errors`)."""

    def __init__(
        self, run: RunFolder, tracking: TrackingConfig, say: Callable[[str], None], directory: Path | None = None
    ) -> None:
        self._run, self._tracking, self.say = run, tracking, say
        self._sent = Sent.load(run.path / STATE, directory)
        self._sent.report = None
        self._sent.save()
        self.uri = resolve(tracking.uri, Path(self._sent.directory))
        self._mlflow: MlflowRun | None = None
        self._logs = self._run_logs(self._sent.offsets)
        self._seen: dict[str, tuple[int, int]] = {}
        self._problems: dict[str, str] = {}

    def send(self, status: Status) -> None:
        """Send what is new; at the end (any `status` but RUNNING) also the results."""
        mlflow = self._open(status)
        self._send_points(mlflow, status)
        self._once("config.yaml", sha256_file(self._run.config), lambda: self._send_config(mlflow))
        for name in (*FILES, *self._figures()):
            self._send_file(mlflow, name)
        if status in ENDED:
            self._send_results(mlflow)

    def close(self, status: Status) -> FollowReport:
        """Count what the store has against the files, set the final status, keep and return the report."""
        mlflow = self._open(status)
        report = self._report(mlflow, status)
        if status != "RUNNING":
            ended = self._run.status().get("ended") or self._last_sign()
            mlflow.set_status(status, round(1000 * ended))
        return self.keep(report)

    def disconnect(self) -> None:
        """Find the run anew at the next send: the store may have come back without it."""
        self._mlflow = None

    def keep(self, report: FollowReport) -> FollowReport:
        """Write the report into `tracking.json` and its message to the log."""
        self._sent.report = asdict(report)
        self._sent.save()
        self.say(report.message)
        return report

    def _open(self, status: Status) -> MlflowRun:
        if self._mlflow is not None:
            return self._mlflow
        store = mask(self.uri)
        known = self._sent.run_id if self._sent.store == store else None
        tags = content.birth_tags(self._run, self._sent.key)
        started = round(1000 * float(self._run.status()["started"]))
        sweep = sweep_of(self._run)
        parent = parent_run(sweep, self.uri, self._tracking.experiment) if sweep is not None else None
        mlflow = MlflowRun.find_or_create(self.uri, self._tracking.experiment, tags, known, started)
        if parent is not None:
            mlflow.set_tags({PARENT: parent.run_id})
        self._sent.belong_to(store, mlflow.run_id)
        if status == "RUNNING":
            mlflow.set_status(status, None)
        self._logs = self._run_logs(self._sent.offsets)
        self._mlflow = mlflow
        return mlflow

    def _send_points(self, mlflow: MlflowRun, status: Status) -> None:
        points, offsets = self._logs.new(ended=status != "RUNNING")
        if offsets == self._logs.offsets:
            return
        mlflow.log_points(points)
        self._logs.offsets = self._sent.offsets = offsets
        self._sent.save()

    def _once(self, name: str, digest_: str, action: Callable[[], object]) -> None:
        """Do `action` unless done for this content; a damaged file is reported, and the rest goes on."""
        if self._sent.done.get(name) == digest_:
            return
        try:
            action()
        except DataError as error:
            self._problems[name] = str(error)
            return
        self._problems.pop(name, None)
        self._sent.done[name] = digest_
        self._sent.save()

    def _send_config(self, mlflow: MlflowRun) -> None:
        config = content.read_config(self._run)
        for key in mlflow.log_parameters(content.parameters(config)):
            self.say(f"parameter {key}: MLflow keeps the value sent first; its config.yaml has the new one")
        mlflow.set_tags(content.later_tags(self._run, config))
        mlflow.log_text(mask_values(self._run.config.read_text("utf-8")), "config.yaml")

    def _send_file(self, mlflow: MlflowRun, name: str) -> None:
        file = self._file(name)
        if not file.exists():
            return
        now = (file.stat().st_mtime_ns, file.stat().st_size)
        if self._seen.get(name) != now:
            self._once(name, sha256_file(file), lambda: self._send_record(mlflow, file, name))
            self._seen[name] = now

    def _file(self, name: str) -> Path:
        """Where a record lies: where a stage has a folder of its own, in that."""
        run = self._run
        placed = {file.name: file for file in (run.data, run.metrics, run.baseline_metrics)}
        return placed.get(name, run.path / name)

    def _send_record(self, mlflow: MlflowRun, file: Path, name: str) -> None:
        mlflow.log_file(file, name)
        if name == "environment.json":
            mlflow.set_tags(content.later_tags(self._run, content.read_config(self._run)))
            if diff := content.git_diff(self._run):
                mlflow.log_text(diff, DIFF)
        if name == "data.json":
            mlflow.log_datasets(content.data_splits(self._run))

    def _send_results(self, mlflow: MlflowRun) -> None:
        points = self._final_points()
        self._once("results", digest(points), lambda: mlflow.log_points(points))
        rows = self._answers()
        sample = content.sample(rows, self._tracking.num_traces)
        if rows:
            made = self._run.predictions.stat().st_mtime_ns // 1_000_000
            self._once(TABLE, digest(rows), lambda: mlflow.log_table(content.table(rows)))
            self._once("traces", digest(sample), lambda: mlflow.log_traces(sample, made))
        if self._tracking.log_model and self._run.model.is_dir():
            files = {str(file): sha256_file(file) for file in _files_below(self._run.model)}
            self._once("model", digest(files), lambda: mlflow.log_folder(self._run.model, "model"))
        note = content.description(self._run)
        self._once("note", digest(note), lambda: mlflow.set_tags({"mlflow.note.content": note}))

    def _answers(self) -> list[JsonObject]:
        """The predictions with their verdicts; none where the file is damaged, which is reported."""
        try:
            return content.answers(self._run)
        except DataError as error:
            self._problems["predictions"] = str(error)
            return []

    def _run_logs(self, offsets: Mapping[str, int]) -> RunLogs:
        trained = self._run.metrics_log.parent
        return RunLogs(self._run.path, offsets, trained if trained.is_relative_to(self._run.path) else None)

    def _log_points(self, ended: bool) -> set[Point]:
        return set(self._run_logs({}).new(ended)[0])

    def _final_points(self) -> list[Point]:
        final = content.final_points(self._run.metrics, "")
        return final + content.final_points(self._run.baseline_metrics, "baseline/")

    def _report(self, mlflow: MlflowRun, status: Status) -> FollowReport:
        ended = status in ENDED
        logged = self._log_points(ended)
        points = logged | set(self._final_points() if ended else [])
        stored = mlflow.stored_points({point.key for point in points})
        keys = {point.key for point in logged}
        strange = sum(1 for point in stored - points if point.key in keys)
        rows = self._answers() if ended else []
        sample = content.sample(rows, self._tracking.num_traces)
        parameters = content.parameters(content.read_config(self._run))
        files = self._expected_files(parameters, rows, ended)
        expected = {
            "metrics": len(points),
            "parameters": len(parameters),
            "datasets": len(content.data_splits(self._run)) if self._run.data.exists() else 0,
            "artifacts": len(files),
            "predictions": len(rows),
            "traces": len(sample),
        }
        sent = mlflow.stored_counts(parameters) | {
            "metrics": len(points & stored),
            "artifacts": len(files & mlflow.stored_files()),
            "traces": mlflow.count_traces(sample),
        }
        return self._verdict(mlflow, status, sent, expected, strange)

    def _verdict(
        self, mlflow: MlflowRun, status: Status, sent: dict[str, int], expected: dict[str, int], strange: int
    ) -> FollowReport:
        problems = [f"{kind}: {sent[kind]} of {count}" for kind, count in expected.items() if sent[kind] != count]
        problems += [f"{strange} metric values are in the store and not in the files"] if strange else []
        problems += self._problems.values()
        counts = ", ".join(f"{number} {kind}" for kind, number in expected.items())
        where = f"{self._run.name} → MLflow run {mlflow.run_id} ({status}) in {mask(self.uri)}"
        found = f"INCOMPLETE: {'; '.join(problems)}" if problems else f"all there: {counts}"
        return FollowReport(status, mlflow.run_id, sent, expected, not problems, f"{where}: {found}")

    def _expected_files(self, parameters: dict[str, str], rows: list[JsonObject], ended: bool) -> set[str]:
        """Paths of the artifacts that the run folder gives rise to."""
        files = {name for name in (*FILES, *self._figures()) if self._file(name).exists()} | {"config.yaml"}
        files |= {LONG_PARAMS} if any(len(value) > MAX_PARAM for value in parameters.values()) else set()
        files |= ({DIFF} if content.git_diff(self._run) else set()) | ({TABLE} if rows else set())
        if ended and self._tracking.log_model:
            files |= {f"model/{file.relative_to(self._run.model)}" for file in _files_below(self._run.model)}
        return files

    def _figures(self) -> list[str]:
        return sorted(f"figures/{file.name}" for file in self._run.path.glob("figures/*.png"))

    def _last_sign(self) -> float:
        """When a killed run last wrote something, Unix seconds."""
        logs = [self._run.path / name for name in ("status.json", METRICS, TIMINGS, SYSTEM)]
        return max(file.stat().st_mtime for file in logs if file.exists())


def _files_below(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())
