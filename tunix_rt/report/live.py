"""A run, or a sweep, that goes on, as text: all of it for a terminal, what has changed for a pipe."""

from __future__ import annotations

from abc import ABC, abstractmethod

from tunix_rt.files import JsonObject, read_record
from tunix_rt.report.curve import curve
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.live import RunWatch, Snapshot
from tunix_rt.runs.liveness import is_alive
from tunix_rt.runs.rates import number, shown
from tunix_rt.runs.sweep import MEMBERSHIP, MemberRecord, SweepFolder
from tunix_rt.terminal import duration

GOES_ON = ("running", "waiting")
NUM_SAMPLES = 3
PARTS = 10
"""How many lines a pipe gets of a stage that counts, besides those at an evaluation."""
BAR = 24


class View(ABC):
    """What is shown of a run or a sweep; `look` renews it."""

    failure: str | None = None
    """Why it ended, if not well."""
    end = ""
    """What a run that ended well has come to."""

    @abstractmethod
    def look(self) -> bool:
        """Read the folder again; returns whether it has ended. Raises DataError if a record is damaged."""

    @abstractmethod
    def screen(self, width: int) -> list[str]:
        """Everything, in lines of at most `width` columns (samples may be longer)."""

    @abstractmethod
    def change(self) -> list[str]:
        """Lines for what has changed since the last call."""


class RunView(View):
    """A run."""

    def __init__(self, run: RunFolder) -> None:
        self._watch = RunWatch(run)
        self._told: tuple[object, ...] = ()
        self.now = self._watch.look()

    def look(self) -> bool:
        self.now = self._watch.look()
        if self.now.state in GOES_ON:
            return False
        if self.now.state == "finished":
            self.end = f"{self.now.run}: finished{_result(self._watch.run)}"
        else:
            self.failure = f"{self.now.run}: {self.now.state}{_why(self.now)}"
        return True

    def screen(self, width: int) -> list[str]:
        found = [f"{self.now.run}  {self.now.state}{_why(self.now)}", _progress(self.now, bar=True)]
        for name, series in self.now.learned.items():
            found += ["", name, *curve(series, width)]
        if self.now.loss and not self.now.learned:
            found += ["", *curve(self.now.loss, width)]
        return found + _validation(self.now)

    def change(self) -> list[str]:
        """A line at each new stage, tenth of a stage and evaluation."""
        now = self.now
        part = now.done * PARTS // now.total if now.total else 0
        told = now.state, now.stage, part, now.validation.get("step")
        if told == self._told:
            return []
        evaluated = self._told[3:] != told[3:]
        self._told = told
        return [_progress(now), *(_validation(now)[1:] if evaluated else [])]


def _why(now: Snapshot) -> str:
    if now.state == "killed":
        return ": its process is gone; the same command goes on from what is saved"
    return f": {now.reason}" if now.reason else ""


def _progress(now: Snapshot, bar: bool = False) -> str:
    """`train  ██████░░░░  312/500 steps, 17.4/s, 11 s left, reward 0.6250, loss 0.1117`."""
    said = [f"{now.done:,}/{now.total:,} {now.unit}" if now.total else f"{now.done:,} {now.unit}"] if now.unit else []
    if now.rate:
        said.append(f"{now.rate:.1f}/s" if now.rate >= 1 else f"{1 / now.rate:.1f} s each")
    if now.seconds_left is not None:
        said.append(f"{duration(now.seconds_left)} left")
    if now.stage == "train":
        said += [f"{name} {series[-1][1]:.4f}" for name, series in now.learned.items()]
    if now.stage == "train" and now.loss:
        said.append(f"loss {now.loss[-1][1]:.4f}")
    full = round(BAR * now.done / now.total) if now.total else 0
    drawn = f"  {'█' * full}{'░' * (BAR - full)}" if bar and now.total else ""
    return f"{now.stage or 'beginning'}{drawn}  {', '.join(said)}".rstrip()


def _validation(now: Snapshot) -> list[str]:
    """The last evaluation while training, and some of its answers."""
    if not now.validation:
        return []
    accuracy = now.validation.get("eval/accuracy")
    right = "" if accuracy is None else f", {100 * accuracy:.1f} % of {len(now.samples) or 'the'} samples right"
    found = ["", f"validation at step {now.validation['step']:,}: loss {now.validation['eval/loss']:.4f}{right}"]
    return found + [
        f"  {'✓' if sample['correct'] else '✗'} {sample['prompt']!r} → {sample['completion']!r}"
        for sample in now.samples[:NUM_SAMPLES]
    ]


def _result(run: RunFolder) -> str:
    accuracy = number(read_record(run.metrics), "accuracy")
    return "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"


class SweepView(View):
    """A sweep: a line for each member that has begun."""

    def __init__(self, sweep: SweepFolder) -> None:
        self._sweep, self._told = sweep, list[str]()
        self._watches: dict[str, RunWatch] = {}
        self._members: list[tuple[str, str]] = []
        """What distinguishes a member, and how far it is."""

    def look(self) -> bool:
        sweep, status = self._sweep, self._sweep.status()
        state = str(status["state"])
        if state == "running" and not is_alive(status, sweep.path / MEMBERSHIP):
            state = "killed"
        records = sorted(sweep.records(), key=lambda record: record.overrides)
        self._members = [self._member(record, status) for record in records]
        done = sum(record.state == "finished" for record in records)
        said = f"{sweep.name}: {state}, {done} of {len(records)} members that have begun are finished"
        self.end, self.failure = said, None if state in ("running", "finished") else said
        return state != "running"

    def _member(self, record: MemberRecord, status: JsonObject) -> tuple[str, str]:
        label = " ".join(f"{key}={record.values[key]}" for key in status["varying"] if key in record.values)
        if record.state == "running" and record.folder is not None:
            watch = self._watches.setdefault(record.key, RunWatch(record.run))
            return label, _progress(watch.look())
        if record.state == "finished":
            metric = str(status["metric"])
            value = number(read_record(record.run.metrics), metric)
            return label, "finished" if value is None else f"finished, {metric} {shown(value)}"
        return label, f"{record.state}: {record.reason}" if record.reason else record.state

    def screen(self, width: int) -> list[str]:
        longest = max((len(label) for label, _ in self._members), default=0)
        return [self.end, "", *(f"{label:{longest}}  {state}" for label, state in self._members)]

    def change(self) -> list[str]:
        """A line for each member that begins a stage or ends."""
        found = {f"{label} {state.partition('  ')[0]}": f"{label}  {state}" for label, state in self._members}
        fresh = [line for known, line in found.items() if known not in self._told]
        self._told = [*found]
        return fresh
