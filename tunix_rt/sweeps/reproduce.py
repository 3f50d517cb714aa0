"""Run every member of a recorded sweep again, and rank the new runs: the same ranking, or where it differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject, read_json, write_json
from tunix_rt.records.reproduce import Reproduction, reproduce
from tunix_rt.runs.diff import first_in_values
from tunix_rt.runs.folder import from_here
from tunix_rt.runs.sweep import MemberRecord, SweepFolder
from tunix_rt.sweeps.ranking import Member, label, ranked, ranking
from tunix_rt.terminal import say


@dataclass(frozen=True, slots=True)
class SweepReproduction:
    """The result of reproducing a sweep."""

    of: str
    equal: bool
    exact: bool
    """Whether every member was compared bit for bit, and so the ranking too."""
    members: list[Reproduction]
    left_out: list[str]
    """Members that did not finish: there is nothing to reproduce."""
    differences: list[str]
    """The first difference of each member that has one, in the order of the ranking; then that of the ranking."""


def reproduce_sweep(sweep: SweepFolder, overrides: Sequence[str], strict: bool) -> SweepReproduction:
    """Run its finished members again, best first, and compare each one and the ranking. New runs lie beside the old.

    Raises InputError (the sweep has not ended, or no member finished), and what `records.reproduce` raises.
    """
    lines = list(_lines(sweep))
    done = [line for line in lines if line.state == "finished"]
    if not done:
        raise InputError(f"{sweep.name}: no member finished, so there is nothing to reproduce")
    found: list[Reproduction] = []
    earlier: dict[Path, Reproduction] = {}
    for place, line in enumerate(done, start=1):
        say(f"member {place} of {len(done)}: {label(sweep, line.values)}")
        found.append(reproduce(line.run, overrides, strict, earlier))
    exact = all(member.exact for member in found)
    differences = [
        f"{label(sweep, line.values)}: {m.difference}" for line, m in zip(done, found, strict=True) if m.difference
    ]
    if exact and (other := _first_of_ranking(sweep, done, found)) is not None:
        differences.append(other)
    left_out = [f"{label(sweep, line.values)}: {line.state}" for line in lines if line.state != "finished"]
    result = SweepReproduction(sweep.name, not differences, exact, found, left_out, differences)
    write_json(sweep.path / "reproduction.json", asdict(result))
    return result


def _lines(sweep: SweepFolder) -> Iterator[MemberRecord]:
    """The members in the order of the ranking. Raises InputError if there is none yet."""
    if sweep.status().get("state") not in ("finished", "failed") or not sweep.ranking.exists():
        raise InputError(f"{sweep.name}: the sweep has not ended; its command again goes on with it")
    for line in read_json(sweep.ranking):
        folder = line["folder"] and str(from_here((sweep.path / line["folder"]).resolve()))
        overrides = tuple(f"{key}={value}" for key, value in line["values"].items())
        yield MemberRecord(overrides, line["state"], folder, line["reason"])


def _first_of_ranking(sweep: SweepFolder, done: Sequence[MemberRecord], found: Sequence[Reproduction]) -> str | None:
    """The first difference between the recorded ranking and that of the new runs, by today's rules."""
    status = sweep.status()
    again = [Member.of(replace(line, folder=made.folder)) for line, made in zip(done, found, strict=True)]
    now = ranking(ranked(again, str(status["metric"]), str(status["direction"])))
    before = [line for line in read_json(sweep.ranking) if line["state"] == "finished"]
    return first_in_values("ranking.json", _without_folders(before), _without_folders(now))


def _without_folders(lines: Sequence[JsonObject]) -> list[JsonObject]:
    return [{key: value for key, value in line.items() if key != "folder"} for line in lines]
