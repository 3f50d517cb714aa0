"""Run a recorded config again with today's data and code, into a new folder, and say whether the results are the same.

Changed data is refused; changed code, lock or versions are reported. If processor, device, threads or versions differ,
bits cannot agree and the numbers are compared within tolerances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunix_rt.config.change import elsewhere
from tunix_rt.config.identity import plain
from tunix_rt.config.load import check
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import DataError, GateError
from tunix_rt.experiment import recorded_config, run
from tunix_rt.files import read_appended, read_json, sha256_file, write_json
from tunix_rt.inference.batches import plan_file, recorded_plan
from tunix_rt.inputs import input_digests, source_digest
from tunix_rt.models.content import folder_digest
from tunix_rt.records.pages import PAGE, first_difference_of_pages
from tunix_rt.runs.diff import (
    Section,
    compare,
    compare_code,
    compare_environments,
    first_difference,
    result_files,
    value_at,
)
from tunix_rt.runs.environment import command_line, gather
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.origin import begun_from
from tunix_rt.runs.rates import rates
from tunix_rt.runs.sessions import machine_of
from tunix_rt.terminal import warn
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.tracking.registry import ModelStore

FIRST_STEPS = 50
RELATIVE = 0.01
TOLERANCE = f"losses of the first {FIRST_STEPS} steps within {RELATIVE:.0%}, every rate in its recorded 95 % interval"
"""Beyond these steps, training is chaotic: a last-bit difference in one weight grows by orders of magnitude within a
few hundred steps."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The result of a reproduction."""

    of: str
    folder: str
    """Folder of the new run."""
    equal: bool
    exact: bool
    """Whether files were compared bit for bit; else within `TOLERANCE`."""
    compared: list[str]
    """The files that were compared."""
    difference: str | None
    """The first difference: file, place, number."""
    environment: list[str]
    """What else differs from the record: code, versions, machine."""
    earlier: str | None = None
    """Folder of the new run of what it begins from, which was run again first."""


Done = dict[Path, Reproduction]
"""Folder of a run → its reproduction."""


def reproduce(recorded: RunFolder, overrides: Sequence[str], strict: bool, done: Done | None = None) -> Reproduction:
    """Run it again and compare, after the run whose model it begins from, unless that is in `done` or gone.

    `overrides`: KEY=VALUE of fields that change no result. `strict`: refuse other code.

    Raises InputError (not finished), DataError (the data changed), GateError (`strict`), and what a run raises.
    """
    recorded.check_finished("result to reproduce")
    config = as_recorded(recorded, overrides)
    check_data(recorded, config)
    before = dict(read_json(recorded.environment))
    now = gather(command_line(), {}) | {"source_sha256": source_digest()}
    differing = _lines(compare_code(before, now))
    for line in differing:
        warn(f"not as recorded: {line}")
    if differing and strict:
        raise GateError(f"{recorded.name}: --strict, and not as recorded: {differing[0]} ({len(differing)} in all)")
    earlier = _earlier(recorded, overrides, strict, {} if done is None else done)
    again = RunFolder(run(config, batches_of=recorded).folder)
    environment = compare_environments(before, dict(read_json(again.environment)))
    exact = machine_of(recorded) is not None and machine_of(recorded) == machine_of(again)
    difference = first_of_data(recorded, again) or (_exactly if exact else _roughly)(recorded, again)
    if earlier is not None and not earlier.equal:
        difference = f"{earlier.of}, which it begins from: {earlier.difference}"
    result = Reproduction(
        of=recorded.name,
        folder=str(again.path),
        equal=difference is None,
        exact=exact,
        compared=[*_named_once(recorded), *([PAGE] if exact and (recorded.path / PAGE).exists() else [])],
        difference=difference,
        environment=[*differing, *_lines(environment)],
        earlier=None if earlier is None else earlier.folder,
    )
    write_json(again.path / "reproduction.json", asdict(result))
    return result


def _named_once(run: RunFolder) -> list[str]:
    """The result files; all rollouts by their folder."""
    return list(dict.fromkeys("rollouts/" if "rollouts/" in name else name for name in result_files(run)))


def _earlier(recorded: RunFolder, overrides: Sequence[str], strict: bool, done: Done) -> Reproduction | None:
    """The reproduction of the run that it begins from; None if it begins from none that is still there."""
    earlier = begun_from(recorded)
    if earlier is None or not earlier.stages():
        return None
    if earlier.path not in done:
        done[earlier.path] = reproduce(earlier, overrides, strict, done)
    return done[earlier.path]


def as_recorded(recorded: RunFolder, overrides: Sequence[str]) -> ExperimentConfig:
    """The recorded config, changed to run in a new folder, untracked, and for as many steps as a time budget gave."""
    config = recorded_config(recorded)
    if (batches := recorded_plan(plan_file(recorded.predictions))) is not None:  # its config may be of a later session
        config = replace(config, generation=replace(config.generation, batch_size=batches.batch_size))
    config = check(elsewhere(plain(config), overrides))
    budget = config.training.trains and config.training.max_seconds is not None
    steps = int(recorded.stages()["train"]["steps_done"]) if budget else config.run.stop_step
    untracked = replace(config.tracking, stores={})
    return replace(config, run=replace(config.run, new=True, stop_step=steps), tracking=untracked)


def check_data(recorded: RunFolder, config: ExperimentConfig) -> None:
    """Compare every named file and model, and the prepared data if it is still there, with the recorded hashes.

    Raises DataError naming the first file that changed.
    """
    hashes = recorded.data_hashes()
    if not hashes:
        warn(f"{recorded.name}: no data hashes recorded (an older version made it); the data cannot be verified")
        return
    now = input_digests(config, ModelStore(config.tracking.uri))
    for key, sha256 in hashes["sources"].items():
        if now.get(key) != sha256:
            raise DataError(
                f"{key}: {_named(config, key)} changed since the run: {str(now.get(key))[:16]} now, "
                f"{sha256[:16]} recorded; put the recorded file back to reproduce {recorded.name}"
            )
    prepared = PreparedData(recorded.data_folder)
    if not prepared.is_whole:
        return
    for name, sha256 in hashes["prepared"].items():
        file = prepared.folder / name
        if not file.is_file() or sha256_file(file) != sha256:
            what = "changed since the run" if file.is_file() else "missing"
            raise DataError(f"{file}: {what}; remove the folder {prepared.folder} and it is prepared again")
    if folder_digest(prepared.model_folder) != hashes["start_model"]:
        raise DataError(f"{prepared.model_folder}: the initial weights changed since the run; remove the folder")


def _named(config: ExperimentConfig, key: str) -> str:
    """The file or name given by a key of the config."""
    value = value_at(plain(config), key)
    return str(next((value[name] for name in ("path", "uri", "name", "experiment") if name in value), value))


def first_of_data(recorded: RunFolder, again: RunFolder) -> str | None:
    """Where the prepared data of two runs differ: a file that was prepared again with different bytes."""
    before, now = (run.data_hashes().get("prepared", {}) for run in (recorded, again))
    own = {"manifest.json": None}  # what it says about the others is in their hashes
    lines = _lines(compare("data", before | own, now | own)) if before else []
    return f"prepared data {lines[0]}" if lines else None


def _lines(section: Section) -> list[str]:
    return [f"{key}: {left} then, {right} now" for key, (left, right) in section.different.items()]


def _exactly(recorded: RunFolder, again: RunFolder) -> str | None:
    there, here = result_files(recorded), result_files(again)
    for name in there | here:
        nowhere = again.path / name
        if found := first_difference(name, there.get(name, nowhere), here.get(name, nowhere)):
            return found
    return first_difference_of_pages(recorded.path / PAGE, again.path / PAGE)


def _roughly(recorded: RunFolder, again: RunFolder) -> str | None:
    """The first number outside of `TOLERANCE`."""
    there, here = _losses(recorded), _losses(again)
    for (step, name), value in there.items():
        other = here.get((step, name))
        if other is None or abs(other - value) > RELATIVE * max(abs(value), abs(other)):
            return f"metrics.jsonl step {step} {name}: {value!r} there, {other!r} here"
    before, now = (rates(read_json(run.metrics)) for run in (recorded, again))
    for name, rate in before.items():
        value, other = rate["value"], now.get(name, {}).get("value")
        if value != other and (value is None or other is None or not rate["low"] <= other <= rate["high"]):
            return f"metrics.json {name}.value: {value!r} there, {other!r} here"
    return None


def _losses(run: RunFolder) -> dict[tuple[int, str], float]:
    lines = [line for _, line in read_appended(run.metrics_log) if line["step"] <= FIRST_STEPS]
    return {(line["step"], name): value for line in lines for name, value in line.items() if name.endswith("/loss")}
