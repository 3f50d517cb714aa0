"""Claims, runs and records a stage. A session is one command's work on a run: some stages, or all of them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tunix_rt import faults
from tunix_rt.backends import registry
from tunix_rt.checked import hashes
from tunix_rt.config.identity import plain
from tunix_rt.engine.context import RunContext
from tunix_rt.engine.outputs import discard_damaged, problem_of, sealed
from tunix_rt.engine.stages import STAGES, Stage
from tunix_rt.engine.turn import turn
from tunix_rt.errors import InputError, Interrupted, TunixError, explained
from tunix_rt.files import JsonObject, read_json, write_json, write_text
from tunix_rt.inputs import check_recorded_data, source_digest
from tunix_rt.machine import cache_folder
from tunix_rt.models.content import folder_digest
from tunix_rt.runs.environment import command_line, gather
from tunix_rt.runs.folder import VERSION, RunFolder, find_done
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.runs.liveness import heartbeat
from tunix_rt.runs.origin import begins_with, begun_from
from tunix_rt.runs.secrets import mask_values
from tunix_rt.terminal import say, warn
from tunix_rt.tracking.syncer import syncing, warn_of_trouble


@contextmanager
def session(context: RunContext, stages: tuple[Stage, ...]) -> Iterator[None]:
    """Record beginning and end of the block's work in the run folder, and send it to the tracker meanwhile.

    If several sessions make up one run (DVC), those that train or report are sent while they work, the others only
    if they fail; only the session that ends the run waits for the tracker.
    """
    from omegaconf import OmegaConf

    run, tracking, last = context.run, context.config.tracking, stages[-1] == STAGES[-1]
    now = last or any(stage.name == "train" for stage in stages)
    if now:
        warn_of_trouble(run.path, tracking, context.home)
    write_text(run.config, OmegaConf.to_yaml(OmegaConf.create(mask_values(plain(context.config)))))
    shared = {"identity": context.chain["evaluate"], "key": f"{run.path.name}-{source_digest()[:12]}"}
    run.begin(shared if context.home else None)
    with syncing(run.path, tracking, context.home, now, last):
        with heartbeat(run.status_file), _ending(run, context.interrupt):
            with context.interrupt.at_once("before its first stage"):  # processes may come minutes later
                write_json(run.environment, _environment(context, stages))
            yield
        if last:
            run.end("finished")
        else:
            following = STAGES[STAGES.index(stages[-1]) + 1]
            run.end("waiting", f"{stages[-1].name} is done; `dvc repro` goes on with {following.name}")


@contextmanager
def _ending(run: RunFolder, interrupt: Interrupt) -> Iterator[None]:
    """Record in the folder how the work ended, unless it ended well."""

    def end(error: TunixError) -> None:
        run.end("interrupted" if isinstance(error, Interrupted) else "failed", str(error), error.exit_code)

    interrupt.last_words = end
    try:
        yield
    except BaseException as error:
        known = explained(error) if isinstance(error, Exception) else TunixError(type(error).__name__)
        end(known or TunixError(f"{type(error).__name__}: {error}"))
        raise


def _environment(context: RunContext, stages: tuple[Stage, ...]) -> JsonObject:
    """The current environment. The backend is created, so that a missing device is reported before any work."""
    config = context.config
    if any(stage.computes for stage in stages):
        backend = registry.create(config.backend, config.hardware, cache_folder()).describe()
    else:
        backend = dict(context.run.stages().get("train", {}).get("backend", {}))
    return gather(command_line(), backend) | {"source_sha256": source_digest()}


def do(stage: Stage, context: RunContext) -> None:
    """Run a stage, unless it is done here, or in a run whose training or predictions can be referred to.

    Prepared data is shared and may be gone: only its own folder tells. Raises what the stage raises.
    """
    run, name = context.run, stage.name
    if name != "prepare" and run.is_done(name, context.chain[name]):
        with context.interrupt.at_once(f"before {name}"):
            problem = problem_of(run, name)
        if problem is None:
            return
        warn(f"{problem}; {name} is done again")
        discard_damaged(run, name)
    run.note_stage(name)
    shared = _may_be_elsewhere(stage, context) and not context.config.run.new
    with turn(run, name, context.chain[name], context.interrupt) if shared else nullcontext():
        other = _elsewhere(stage, context)
        if other is None:
            _work(stage, context)
        else:
            say(f"{name}: done by {other.name}, which is used")
            folder = os.path.relpath(other.place(name).resolve(), run.path.resolve())
            run.record_stage(name, other.stages()[name] | {"folder": folder})


def _work(stage: Stage, context: RunContext) -> None:
    """Run the stage and record its facts and outputs, only after all of them are on disk."""
    run, name, identity = context.run, stage.name, context.chain[stage.name]
    if context.home is None:
        run.record_stage(name, {"identity": identity, "state": "begun"})
    place = RunFolder(run.place(name))
    started = time.monotonic()
    faults.point(f"begun {name}")
    with context.interrupt.at_once(f"during {name}; it will be done again"):  # training and prediction override it
        facts = stage.work(context) or {}
        faults.point(f"worked {name}")
        if name == "prepare":
            write_json(place.path / run.data.name, mask_values(_data_record(context, place.path)))
        if stage.computes:
            facts["backend"] = read_json(run.environment)["backend"]
        outputs = sealed(place.path, stage.outputs)
    faults.point(f"sealed {name}")
    took = {"stage_seconds": round(time.monotonic() - started, 6)}
    record = {"identity": identity, "state": "done", **facts, "outputs": outputs}
    if place == run:
        run.record_stage(name, record | took)
    else:  # for DVC, which compares the folder's bytes, it holds no time of its own
        place.record_stage(name, record)
        run.record_stage(name, record | took | {"folder": name})


def _may_be_elsewhere(stage: Stage, context: RunContext) -> bool:
    """Whether a result may be that of another run. DVC has its own cache, and no training is done at once."""
    trains = stage.name != "train" or context.config.training.trains
    return stage.computes and trains and context.home is None


def _elsewhere(stage: Stage, context: RunContext) -> RunFolder | None:
    """Another run that has done the same work and still has the result."""
    if not _may_be_elsewhere(stage, context):
        return None
    run, config, identity = context.run, context.config, context.chain[stage.name]
    found = [context.base] if context.base is not None and context.base.is_done(stage.name, identity) else []
    if not config.run.new:
        found += find_done(run.root, config.name, stage.name, identity)
    others = (other for other in found if other.path.resolve() != run.path.resolve())
    return next((other for other in others if problem_of(other, stage.name) is None), None)


def _data_record(context: RunContext, place: Path) -> JsonObject:
    """`data.json` in `place`: the manifest, its location, and hashes of all inputs and outputs."""
    prepared = context.prepared
    if context.base is not None:
        check_recorded_data(context.base, prepared)
    found = {
        "sources": dict(context.input_digests),
        "prepared": hashes(prepared.folder),
        "start_model": folder_digest(prepared.model_folder),
    }
    folder = os.path.relpath(prepared.folder.resolve(), place.resolve())
    record = prepared.manifest | {"record_version": VERSION, "folder": folder, "hashes": found}
    earlier = context.earlier or (context.base and begun_from(context.base))
    return record | (begins_with(earlier, place) if earlier else {})


def claim(stage: Stage, context: RunContext) -> None:
    """If each stage has its own folder: create it, or keep what an interruption of the same work left in it.

    The records of the previous stages are collected again, since DVC may have restored others. Raises InputError if
    one of them did other work than declared.
    """
    run, name = context.run, stage.name
    begun = {"identity": context.chain[name], "state": "begun", "source_sha256": source_digest()}
    records: dict[str, JsonObject] = {}
    for earlier in STAGES[: STAGES.index(stage)]:
        record = RunFolder(run.path / earlier.name).stages().get(earlier.name, {})
        if (record.get("identity"), record.get("state")) != (context.chain[earlier.name], "done"):
            raise InputError(f"{run.path / earlier.name}: not what is declared; `dvc repro` does the stages in order")
        known = run.stages().get(earlier.name, {})
        same = "stage_seconds" in known and known.get("identity") == record["identity"]
        took = {"stage_seconds": known["stage_seconds"]} if same else {}
        records[earlier.name] = record | took | {"folder": earlier.name}
    if stage != STAGES[-1]:
        place = RunFolder(run.path / name)
        if place.stages().get(name) != begun:
            shutil.rmtree(place.path, ignore_errors=True)
            if name == "prepare":
                shutil.rmtree(context.prepared.folder, ignore_errors=True)
        place.record_stage(name, begun)
        if name == "train":  # DVC wants every output, whatever the objective
            place.rollouts.mkdir(exist_ok=True)
        records[name] = begun | {"folder": name}
    write_json(run.path / "stages.json", records)
