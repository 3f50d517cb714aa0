"""Sends a run folder to a store: finds what is new in it and sends one item after the other.

`tracking.json` records after each success what the store has (byte offsets, digests): after a killed sync process or
a lost store at most one item is sent twice, which is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tunix_rt.checked import hashes
from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import DataError
from tunix_rt.files import digest, sha256_file
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.secrets import mask
from tunix_rt.runs.sweep import sweep_of
from tunix_rt.tracking import content
from tunix_rt.tracking.state import FolderSync, SyncReport, session_of
from tunix_rt.tracking.store import ENDED, Entry, Status, Store
from tunix_rt.tracking.sweep import parent_id
from tunix_rt.tracking.tail import METRICS, SYSTEM, TIMINGS, RunLogs

ENDS: dict[str, Status] = {
    "running": "running",
    "waiting": "waiting",
    "finished": "finished",
    "failed": "failed",
    "interrupted": "killed",
    "killed": "killed",
}
"""Maps the state in `status.json` to the status sent to the store."""


class RunSync(FolderSync):
    """Sends one run; `parent` returns the id of its sweep's run, if that is known without asking the store."""

    def __init__(
        self,
        run: RunFolder,
        tracking: TrackingConfig,
        directory: Path | None = None,
        parent: Callable[[], str] | None = None,
    ) -> None:
        super().__init__(run.path, tracking, directory)
        self._run, self._parent = run, parent
        self._logs = self._run_logs(self.state.offsets)
        self._seen: dict[str, list[tuple[int, int]]] = {}
        self._problems: dict[str, str] = {}

    def status(self) -> Status:
        """The run's status; `killed` if its process is gone without having recorded an end."""
        status = ENDS[str(self._run.status()["state"])]
        # it may have recorded its end between the read of the file and the check of its process
        return ENDS[str(self._run.status()["state"])] if status == "killed" else status

    def session(self) -> str:
        """Which start of the run this is."""
        return session_of(self._run.status())

    def send(self, status: Status) -> None:
        """Send what is new, and the results if the run has ended."""
        store, run = self._open(status), self._run
        self._send_points(store, status)
        ended = status in ENDED
        told = (run.path / "status.json", run.report) if ended else ()
        self._changed("facts", (run.config, run.environment, run.data, *told), partial(self._send_facts, store, ended))
        for name, file in content.records(run).items():
            self._changed(name, (file,), partial(self._send_record, store, name, file))
        if ended:
            results = (run.metrics, run.baseline_metrics)
            self._changed("results", results, partial(self._send_results, store))
            self._changed(content.PREDICTIONS, (run.predictions, run.items), partial(self._send_table, store))
            self._send_model(store)

    def close(self, status: Status) -> SyncReport:
        """After the last `send`: set the final status, save and return the report."""
        if status != "running":
            ended = float(self._run.status().get("ended") or self._last_sign())
            self._open(status).close(status, round(1000 * ended))
        wrong = "; ".join(self._problems.values())
        end = f"INCOMPLETE: {wrong}" if wrong else "all sent"
        return self.keep(status, not wrong, f"{self.where(self._run.name, status)}: {end}")

    def disconnect(self, trouble: str) -> None:
        """Look up the run again at the next send, and check every file again."""
        self._seen = {}
        super().disconnect(trouble)

    def _open(self, status: Status) -> Store:
        if self._store is not None:
            return self._store
        shown = mask(self.uri)
        same = (self.state.kind, self.state.store) == (self.tracking.kind, shown)
        store = self.make_store()
        run_id = store.open(
            Entry(
                name=content.run_name(self._run),
                tags=content.identity_tags(self._run, self.state.key),
                started=round(1000 * float(self._run.status()["started"])),
                known=self.state.run_id if same else None,
                parent=self._parent_id(),
                running=status == "running",
            )
        )
        self.state.belong_to(self.tracking.kind, shown, run_id)
        self._logs = self._run_logs(self.state.offsets)
        self._store = store
        return store

    def _parent_id(self) -> str | None:
        if self._parent is not None:
            return self._parent()
        sweep = sweep_of(self._run)
        return None if sweep is None else parent_id(sweep, self.make_store())

    def _send_points(self, store: Store, status: Status) -> None:
        while True:
            points, offsets = self._logs.new(ended=status != "running")
            if offsets == self._logs.offsets:
                return
            store.metrics(points)
            self._logs.offsets = self.state.offsets = offsets
            self.state.save()

    def _changed(self, name: str, files: Sequence[Path], send: Callable[[], None]) -> None:
        """Call `send` if one of the files changed; a damaged file is reported and does not stop the rest."""
        stats = [file.stat() for file in files if file.exists()]
        now = [(stat.st_mtime_ns, stat.st_size) for stat in stats]
        if not stats or self._seen.get(name) == now:
            return
        self._problems.pop(name, None)
        try:
            send()
        except DataError as error:
            self._problems[name] = str(error)
        self._seen[name] = now

    def _once(self, name: str, digest_: str, put: Callable[[], None]) -> None:
        """Call `put` unless the store already has this content under that name."""
        if self.state.done.get(name) != digest_:
            put()
            self.state.done[name] = digest_
            self.state.save()

    def _send_facts(self, store: Store, ended: bool) -> None:
        facts = content.facts(self._run, ended)
        self._once("facts", digest(asdict(facts)), lambda: store.params(facts))

    def _send_record(self, store: Store, name: str, file: Path) -> None:
        self._once(name, sha256_file(file), lambda: store.artifact(name, file))
        if file == self._run.environment and (diff := content.git_diff(self._run)):
            self._once(content.DIFF, digest(diff), lambda: store.artifact(content.DIFF, diff))

    def _send_results(self, store: Store) -> None:
        points = content.summary_metrics(self._run.metrics, "")
        points += content.summary_metrics(self._run.baseline_metrics, "baseline/")
        self._once("results", digest(points), lambda: store.metrics(points))

    def _send_table(self, store: Store) -> None:
        rows = content.answers(self._run)
        if rows:
            made = self._run.predictions.stat().st_mtime_ns // 1_000_000
            table = content.table(rows, self.tracking.num_traces, made)
            self._once(content.PREDICTIONS, digest(asdict(table)), lambda: store.table(table))

    def _send_model(self, store: Store) -> None:
        model = self._run.model
        if self.tracking.log_model and model.is_dir():
            self._once("model", digest(hashes(model)), lambda: store.artifact("model", model))

    def _run_logs(self, offsets: Mapping[str, int]) -> RunLogs:
        trained = self._run.metrics_log.parent
        return RunLogs(self._run.path, offsets, trained if trained.is_relative_to(self._run.path) else None)

    def _last_sign(self) -> float:
        """When a killed run last wrote something, Unix seconds."""
        logs = [self._run.path / name for name in ("status.json", METRICS, TIMINGS, SYSTEM)]
        return max(file.stat().st_mtime for file in logs if file.exists())
