"""Weights & Biases as a store: metrics, config, tags, files, figures, the table of predictions.

Without a login it works offline: W&B records in the run's folder, touches no network, and `wandb sync` sends it later.
What W&B would gather by itself (console, git, code, packages, load and description of the machine, usage statistics of
its own) stays off: a run records these. What a run has is read back when it begins, and only the
rest is added. Only the sync process imports wandb.
"""

from __future__ import annotations

import json
import netrc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tunix_rt.config.section import Execution, Text, section
from tunix_rt.files import digest
from tunix_rt.hints import command
from tunix_rt.runs.secrets import mask
from tunix_rt.tracking.store import IN_RUN, Entry, Facts, Status, Store, StoreError, Table
from tunix_rt.tracking.stores import _wandb_file as wandb_file
from tunix_rt.tracking.stores._held import Held, Mark, by_moment
from tunix_rt.tracking.tail import Point

SERVER = "https://api.wandb.ai"
ALWAYS = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
OFF: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""What W&B does not gather."""
FLUSH_SECONDS = 1.0
"""How long W&B may hold what it is given before it is in its file."""
INIT_SECONDS = 300.0
"""W&B's own program is started within this time: a busy machine takes a minute."""
ID = 16
MAX_TAG = 64
STEP, TIME = "step", "_timestamp"
"""Columns of W&B's history: the step of training, and Unix seconds."""
MISSING = "Could not find run"
"""What W&B says of a run that is not there."""
EXIT = {"finished": 0, "failed": 1, "killed": 137}


@section
class WandbSettings:
    """`tracking.stores.wandb`."""

    mode: Execution[Literal["online", "offline"] | None] = None
    """Null: `online` where one is logged in (WANDB_API_KEY, or `wandb login`), unless WANDB_MODE=offline."""
    entity: Execution[Text | None] = None
    """The user or team that the project belongs to; null: one's own."""
    tags: Execution[tuple[Text, ...]] = ()
    """Tags of the run, beside its backend."""

    @property
    def online(self) -> bool:
        """Whether it is sent while the run goes on."""
        if self.mode is not None:
            return self.mode == "online"
        return os.environ.get("WANDB_MODE", "online") == "online" and logged_in()


def server() -> str:
    """The address of the server."""
    return os.environ.get("WANDB_BASE_URL", SERVER)


def logged_in() -> bool:
    """Whether there is a key for the server, in the environment or where `wandb login` puts it; no key is returned."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    with suppress(OSError, RuntimeError, netrc.NetrcParseError):
        file = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
        return urlsplit(server()).hostname in netrc.netrc(file).hosts
    return False


class WandbStore(Store):
    """One run in W&B. It is begun by the first thing that is sent."""

    title = "W&B"
    settings_type = WandbSettings
    package = "wandb"
    reads_back = True
    settings: WandbSettings
    _entry: Entry
    _id: str
    _run: Any = None
    _page = ""

    @classmethod
    def address(cls, uri: str, settings: WandbSettings) -> str:
        return server() if settings.online else IN_RUN

    @classmethod
    def ui_command(cls, uri: str, folder: Path) -> str:
        if uri != IN_RUN:
            return uri.replace("://api.", "://")
        return command(["wandb", "sync", str(folder / "wandb")]) + "/offline-run-*"

    def open(self, entry: Entry) -> str:
        """Its id follows from its identity tags, so nobody has to search."""
        self._entry = entry
        self._id = digest([entry.tags["tunix_rt.identity"], entry.tags["tunix_rt.key"]])[:ID]
        self._held, self._rows = Held(), 0
        return self._id

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn any error of W&B into StoreError; what it holds is written first, so that the next one reads it back."""
        from wandb.errors import Error

        try:
            yield
        except (Error, OSError, ValueError) as error:
            if self._run is not None:
                with suppress(Exception):
                    self._run.finish(exit_code=1)
            raise StoreError(f"W&B: {' '.join(mask(str(error)).split())[:500]}") from error

    def _begun(self) -> Any:
        """The run in W&B, begun or resumed."""
        if self._run is not None:
            return self._run
        os.environ.update(ALWAYS)
        import wandb

        online, entry = self.uri != IN_RUN, self._entry
        settings = wandb.Settings(
            mode="online" if online else "offline",
            root_dir=str(entry.folder),
            reinit="create_new",
            init_timeout=INIT_SECONDS,
            x_service_wait=INIT_SECONDS,
            x_transaction_log_flush_interval=FLUSH_SECONDS,
            **OFF,
        )
        with self._errors():
            self._run = wandb.init(
                project=self.experiment,
                entity=self.settings.entity,
                id=self._id,
                name=entry.name,
                group=entry.parent,
                tags=[tag[:MAX_TAG] for tag in self.settings.tags],
                resume="allow",
                settings=settings,
            )
            self._page = str(self._run.url) if online else ""
            self._run.define_metric("*", step_metric=STEP)
            for row in self._there(online):
                self._rows = max(self._rows, int(row.get("_step", -1)) + 1)
                self._held.update(_marks(row))
        return self._run

    def _there(self, online: bool) -> Iterator[dict[str, Any]]:
        """The rows that the run has already."""
        if not online:
            yield from wandb_file.rows(self._entry.folder / "wandb", self._id)
        elif self._run.resumed:
            import wandb

            yield from wandb.Api().run(self._run.path).scan_history()

    def _log(self, values: dict[str, Any], step: int, time: int) -> None:
        """Add a row with those of the values that the run does not have at this step and time."""
        if new := self._held.missing(values, step, time):
            self._run.log({STEP: step, TIME: time / 1000, **{key: values[key] for key in new}}, step=self._rows)
            self._rows += 1
            self._held.update((key, step, time) for key in new)

    def params(self, facts: Facts) -> None:
        run = self._begun()
        with self._errors():
            run.config.update({key: _value(text) for key, text in facts.parameters.items()}, allow_val_change=True)
            run.config.update(facts.tags, allow_val_change=True)
            splits = {split.name: {"sha256": split.sha256, **split.profile} for split in facts.datasets}
            run.config.update({"data": splits}, allow_val_change=True)
            run.tags = tuple(dict.fromkeys([*run.tags, *_tags(facts)]))
            if facts.note:
                run.notes = facts.note

    def metrics(self, points: Sequence[Point]) -> None:
        self._begun()
        with self._errors():
            for step, time, together in by_moment(points):
                self._log({point.key: point.value for point in together}, step, time)

    def artifact(self, name: str, content: Path | str) -> None:
        """Files of a run are its files in W&B, figures are images too; a model is a reference to its folder."""
        import wandb

        run = self._begun()
        with self._errors():
            if isinstance(content, Path) and content.is_dir():
                model = wandb.Artifact(f"{name}-{self._id}", type=name)
                model.add_reference(content.resolve().as_uri())
                run.log_artifact(model)
                return
            place = Path(run.dir) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content.read_bytes())
            run.save(str(place), base_path=run.dir, policy="now")
            if isinstance(content, Path) and content.suffix == ".png":
                self._log_once(name.removesuffix(".png"), lambda: wandb.Image(str(content)), content)

    def _log_once(self, key: str, make: Callable[[], Any], file: Path) -> None:
        time = file.stat().st_mtime_ns // 1_000_000
        if self._held.missing([key], 0, time):
            self._log({key: make()}, 0, time)

    def table(self, table: Table) -> None:
        import wandb

        self._begun()
        time = table.time or self._entry.started
        key = Path(table.name).stem
        if self._held.missing([key], 0, time):
            with self._errors():
                made = wandb.Table(columns=[*table.columns], data=table.rows, allow_mixed_types=True)
                self._log({key: made}, 0, time)

    def close(self, status: Status, ended: int | None) -> None:
        if self._run is not None:
            with self._errors():
                self._run.finish(exit_code=EXIT.get(status, 0))
            self._run = None

    def page(self) -> str:
        return self._page

    def remove(self, run_id: str) -> None:
        """Where it was recorded in the run's folder, it goes with that."""
        if self.uri == IN_RUN:
            return
        import wandb

        with self._errors():
            api = wandb.Api()
            entity = self.settings.entity or api.default_entity
            try:
                api.run(f"{entity}/{self.experiment}/{run_id}").delete()
            except ValueError as error:  # older versions have no class for it
                if MISSING not in str(error):
                    raise


STORE = WandbStore


def _marks(row: dict[str, Any]) -> Iterator[Mark]:
    step, time = row.get(STEP), row.get(TIME)
    if step is not None and time is not None:
        yield from ((key, int(step), round(1000 * time)) for key in row if not key.startswith("_") and key != STEP)


def _value(text: str) -> Any:
    """A parameter as the number, list or truth value that it says, else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _tags(facts: Facts) -> list[str]:
    return [value[:MAX_TAG] for key, value in facts.tags.items() if key == "tunix_rt.backend"]
