"""`sessions.jsonl`: the machine of each session of training or prediction, one per line.

A resumed run may have changed machines in between. The same bits can be expected only if all its sessions agree.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from tunix_rt.files import JsonObject, append_line, read_appended, read_record
from tunix_rt.runs.environment import fingerprint
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import say

FILE = "sessions.jsonl"
OLDER = "fingerprint.json"
"""What earlier versions wrote instead: the last fingerprint, and whether it equalled that of the previous session."""


def same_machine(run: RunFolder, stage: str, backend: dict[str, str]) -> bool:
    """Whether every session so far was on such a machine; `backend`: what the framework reports about itself."""
    same = set(_fingerprints(run, stage)) <= {fingerprint(backend)}
    if not same:
        say(f"{stage}: framework, device or processor differ from an earlier session; the record is not bit-exact")
    return same


def begin_session(
    run: RunFolder,
    stage: str,
    backend: dict[str, str],
    first_step: int | None = None,
    num_steps: int | None = None,
    placed: JsonObject | None = None,
) -> None:
    """Append the facts of a session that begins. `first_step`: first training step, from 1; `num_steps`: of all.

    `placed`: devices, mesh, and rows of a device at once.
    """
    step = {} if first_step is None else {"first_step": first_step, "num_steps": num_steps}
    facts = {"stage": stage, **step, "fingerprint": fingerprint(backend), "host": platform.node(), "backend": backend}
    append_line(run.place(stage) / FILE, facts | (placed or {}))


def note_rows(run: RunFolder, backend: dict[str, str], step: int, placed: JsonObject) -> None:
    """Append that from a step on a device computes fewer rows at once, which changes the last bits."""
    facts = {"stage": "train", "step": step, "fingerprint": fingerprint(backend)}
    append_line(run.place("train") / FILE, facts | placed)


def recorded_rows(run: RunFolder, placed: JsonObject) -> int | None:
    """Rows of a device at once at the end of the last session, if its devices and mesh were these."""
    lines = [line for _, line in read_appended(run.place("train") / FILE) if "local_batch_size" in line]
    same = lines and all(lines[-1][name] == placed[name] for name in ("devices", "mesh"))
    return lines[-1]["local_batch_size"] if same else None


def end_session(run: RunFolder, stage: str, last_step: int) -> None:
    """Append the last step of the session that began last."""
    append_line(run.place(stage) / FILE, {"stage": stage, "last_step": last_step})


def planned_steps(run: RunFolder) -> int | None:
    """How many steps the training of a run that has begun is to have; None if that is not recorded."""
    sessions = [line for _, line in read_appended(run.place("train") / FILE) if line.get("num_steps") is not None]
    return int(sessions[-1]["num_steps"]) if sessions else None


def machine_of(run: RunFolder) -> str | None:
    """The fingerprint that all sessions of training and prediction have; None if they differ or have none."""
    found = {*_fingerprints(run, "train"), *_fingerprints(run, "predict")}
    return found.pop() if len(found) == 1 else None


def _fingerprints(run: RunFolder, stage: str) -> Iterator[str]:
    place = run.place(stage)
    if stage == "train" and (older := read_record(place / OLDER)):
        yield str(older["fingerprint"])
        if not older["bit_exact"]:
            yield "another one"
    for _, line in read_appended(place / FILE):
        if line.get("stage") == stage and "fingerprint" in line:
            yield str(line["fingerprint"])
