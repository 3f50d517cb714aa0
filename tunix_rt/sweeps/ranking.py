"""Members of a sweep: a line for each change, and all of them ranked, as rows of a table and as `ranking.json`.

Equal results share a rank. Whether a member is distinguishable from the first is tested on the test items if both
answered the same ones (McNemar's exact test), else by their intervals.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject, read_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog
from tunix_rt.runs.rates import Interval, interval, lookup, shown
from tunix_rt.runs.sweep import MemberRecord, SweepFolder
from tunix_rt.terminal import say
from tunix_rt.traces.prediction import read_items

SIGNIFICANT = 0.05
"""Significance level: p-value below which two members count as different."""


def label(sweep: SweepFolder, values: dict[str, str]) -> str:
    """What distinguishes a member from the others of its sweep."""
    keys: Sequence[str] = sweep.status().get("varying") or list(values)
    return " ".join(f"{key}={short(values[key])}" for key in keys if key in values) or "the only one"


def short(text: str) -> str:
    """A number of seventeen digits, cut to five; short numbers and text unchanged."""
    try:
        return text if len(text) < 8 else f"{float(text):.5g}"
    except ValueError:
        return text


def announce(sweep: SweepFolder, record: MemberRecord) -> None:
    """Print the current state of a member: one line, with what it varies and its folder."""
    who = f"member {label(sweep, record.values)}"
    where = f" ({record.folder})" if record.folder else ""
    if record.state == "running":
        say(f"{who}: running{where}; prints to {os.path.relpath(sweep.log(record.key))}")
    elif record.state == "finished":
        metric = str(sweep.status()["metric"])
        try:
            result = f"{metric} {shown(lookup(read_json(record.run.metrics), metric))}"
        except InputError as error:  # a misspelt metric concerns all members and is reported at the end
            result = str(error).splitlines()[0]
        say(f"{who}: finished, {result}{where}")
    elif record.state == "failed":
        say(f"error: {who} failed{where}, the others go on: {record.reason}")
    else:
        say(f"{who}: {record.state}{where}: {record.reason}")


@dataclass(frozen=True)
class Member:
    """One member with its results."""

    record: MemberRecord
    metrics: JsonObject | None = None
    """`metrics.json`; None if it did not finish."""
    validation_loss: float = math.inf
    """The last validation loss, which orders members of equal rank."""
    questions: str | None = None
    """Digest of its prompts and of the right answers; None if that is not recorded."""

    @classmethod
    def of(cls, record: MemberRecord) -> Member:
        """Built from its record and its run folder."""
        if record.state != "finished":
            return cls(record)
        run = record.run
        trained = RunFolder(run.model.parent)  # a sibling, if that one did the training
        losses = MetricsLog(trained.metrics_log, trained.timings_log, exact=False).series("eval/loss")
        questions = read_json(run.data).get("questions", {}).get(run.read_config()["generation"]["split"])
        return cls(record, read_json(run.metrics), losses[-1][1] if losses else math.inf, questions)

    @cached_property
    def answers(self) -> dict[tuple[str, str], bool]:
        """Test item (its id and reference) → whether the answer is right; read once, when first compared."""
        return {(item["id"], item["reference"]): bool(item["correct"]) for item in read_items(self.record.run.items)}


@dataclass(frozen=True, slots=True)
class Ranked:
    """A member with its rank."""

    member: Member
    rank: int | None
    """From 1; None if it did not finish."""
    leading: bool
    """Whether it is not distinguishable from the first, for lack of a difference or of a common test."""
    value: float | None = None
    """The metric by which it is ranked."""
    interval: Interval | None = None
    """The 95 % interval of that, if it is a rate."""


def comparable(members: Sequence[Member]) -> bool:
    """Whether the finished members answered the same questions, as far as recorded."""
    return len({member.questions for member in members if member.metrics is not None}) < 2


def title(experiment: str, members: Sequence[Member], metric: str) -> str:
    """The title of the table."""
    unlike = "" if comparable(members) else "; NOT comparable: their questions differ (dataset)"
    return f"{experiment}: {len(members)} members, ranked by {metric}{unlike}"


def varying(members: Sequence[dict[str, str]]) -> list[str]:
    """The override keys whose values differ between members."""
    keys = dict.fromkeys(key for values in members for key in values)
    return [key for key in keys if len({values.get(key) for values in members}) > 1]


def ranked(members: Sequence[Member], metric: str, direction: str) -> list[Ranked]:
    """Best first; those that did not finish come last, in their original order.

    Raises InputError if the metric is not in `metrics.json`.
    """
    sign = -1.0 if direction == "maximize" else 1.0
    done = [(lookup(m.metrics, metric), interval(m.metrics, metric), m) for m in members if m.metrics is not None]
    done.sort(key=lambda item: (sign * item[0], item[2].validation_loss))
    values = [value for value, _, _ in done]
    alike = comparable(members)
    placed = [
        Ranked(
            member,
            1 + values.index(value),
            not alike or value == values[0] or not distinguishable(done[0][2], member, metric),
            value,
            between,
        )
        for value, between, member in done
    ]
    return placed + [Ranked(member, None, False) for member in members if member.metrics is None]


def distinguishable(first: Member, other: Member, metric: str) -> bool:
    """Whether two members with unequal results differ by more than chance; numbers without an interval always do."""
    if metric == "accuracy" and (pairs := _pairs(first, other)) is not None:
        return _mcnemar(*pairs) < SIGNIFICANT
    spans = [interval(member.metrics or {}, metric) for member in (first, other)]
    if spans[0] is None or spans[1] is None:
        return True
    return spans[0].low > spans[1].high or spans[1].low > spans[0].high


def _pairs(first: Member, other: Member) -> tuple[int, int] | None:
    """Number of test items that only the first, and only the other answered correctly; None if their items differ.

    Samples of one prompt are not independent, so there must be one per prompt.
    """
    mine, theirs = first.answers, other.answers
    if mine.keys() != theirs.keys() or any(len(m.answers) != (m.metrics or {}).get("n") for m in (first, other)):
        return None
    return sum(mine[key] > theirs[key] for key in mine), sum(mine[key] < theirs[key] for key in mine)


def _mcnemar(more: int, less: int) -> float:
    """Two-sided probability that a fair coin falls as unevenly in `more + less` throws (McNemar's exact test)."""
    throws = more + less
    tail: int = sum(math.comb(throws, count) for count in range(min(more, less) + 1))
    probability: float = 2 * tail / 2**throws  # of integers: a float power would overflow
    return min(1.0, probability)


def verdict(found: Sequence[Ranked], values: str) -> str:
    """A line that says what can be concluded from the ranking; `values`: what the first member varied."""
    leading = sum(place.leading for place in found)
    if leading == 0:
        return "no member finished"
    if not comparable([place.member for place in found]):
        return "none of them is best: they were not asked the same questions (one dataset.seed for all compares)"
    if leading > 1:
        return f"{leading} members (=) cannot be told apart by this test at 95 %: none of them is best"
    return f"best: {values}" if sum(place.rank is not None for place in found) > 1 else f"the only result: {values}"


def rows(found: Sequence[Ranked], metric: str) -> tuple[list[str], list[list[str]]]:
    """Column names and rows: rank, what varied, the metric with its 95 % interval, stop rate, run or why there is none.

    `=` after a rank: not distinguishable from the first.
    """
    keys = varying([place.member.record.values for place in found])
    tied = sum(place.leading for place in found) > 1
    lines: list[list[str]] = []
    for place in found:
        record, metrics, between = place.member.record, place.member.metrics, place.interval
        changed = [short(record.values.get(key, "")) for key in keys]
        if metrics is None or place.value is None:
            why = [*filter(None, [record.folder]), *(record.reason or "").splitlines()[:1]]
            lines.append(["-", *changed, record.state, "", "", " ".join(why)])
            continue
        spread = f"[{shown(between.low)}, {shown(between.high)}]" if between else ""
        numbers = [shown(place.value), spread, shown(lookup(metrics, "stop_rate"))]
        lines.append([f"{place.rank}{'=' if tied and place.leading else ''}", *changed, *numbers, record.folder or ""])
    return ["rank", *keys, metric, "95 % interval", "stop rate", "run"], lines


def ranking(found: Sequence[Ranked]) -> list[JsonObject]:
    """The contents of `ranking.json`, best first."""
    lines: list[JsonObject] = []
    for place in found:
        record, between = place.member.record, place.interval
        line: JsonObject = {"rank": place.rank, "leading": place.leading, "values": record.values}
        line |= {"state": record.state, "folder": record.folder, "value": place.value}
        line |= {"interval": None if between is None else [between.low, between.high]}
        lines.append(line | {"metrics": place.member.metrics, "reason": record.reason})
    return lines
