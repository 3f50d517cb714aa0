"""Prints a plan for a person."""

from __future__ import annotations

import re
from typing import get_args

from tunix_rt.backends.memory import MemoryQuery
from tunix_rt.plan.estimate import Part
from tunix_rt.plan.make import Plan
from tunix_rt.terminal import duration, out, table

NUMBERED = re.compile(r"\d+ \((.*)\)")
"""The name of a device, in which its kind comes after its number."""


def show(plan: Plan) -> None:
    """Print it to stdout."""
    outline, totals, parts = plan.estimate.outline, plan.estimate.totals, list(get_args(Part))
    query, backend = outline.query, outline.config.backend
    trains = outline.config.training.trains
    updates, prompts = outline.updates, " of prompts" if outline.updates.sampled else ""
    epoch = (
        f"{updates.num_tokens:,} tokens{prompts} in {updates.steps_per_epoch:,.1f} steps, rows of {updates.row_length}"
    )
    rows = [
        ("backend", f"{backend.name}, {backend.precision}{_why(plan)}"),
        ("devices", _devices(plan)),
        ("parameters", _parameters(query) if trains else f"{query.num_parameters:,}"),
        ("epoch", epoch),
        ("training", f"{updates.num_steps:,} steps, {updates.num_epochs:g} epochs"),
        ("rows of an update", _rows(plan)),
        ("sent per step", _sent(plan)),
        ("measured", _measured(plan)),
        ("time", _time(plan)),
    ]
    if not trains:
        rows = [*rows[:3], ("training", "none: the model is asked as it is")]
    if plan.first is not None:
        rows.append(("comes first", f"another experiment, in its own time and memory: {plan.first}"))
    table(outline.config.name, (), [(name, said) for name, said in rows if said])
    parts = [part for part in parts if any(taken.get(part) for taken in plan.estimate.phases.values())]
    columns = ("phase", *(part.replace("kv_", "KV ") for part in parts), "together")
    sizes = [
        [name, *(_mebibytes(size) for size in (*(taken.get(part, 0) for part in parts), totals[name]))]
        for name, taken in plan.estimate.phases.items()
    ]
    table("memory of one device as it follows from shapes, MiB", columns, sizes, right=range(1, len(columns)))
    _verdict(plan)


def _why(plan: Plan) -> str:
    """By what the precision was chosen, or what speaks against it."""
    if chosen_by := plan.estimate.outline.config.backend.chosen_by:
        return f", the faster one here: {chosen_by}"
    return f", though float32 is faster here: {plan.slower} (backend.precision=auto chooses)" if plan.slower else ""


def _devices(plan: Plan) -> str:
    mesh = plan.estimate.outline.query.mesh
    if mesh.size == 1:
        return ", ".join(plan.devices) or f"{plan.budget.platform}, of which none is here"
    kinds = ", ".join(dict.fromkeys(NUMBERED.sub(r"\1", name) for name in plan.devices))
    return f"{mesh.size} x {kinds or f'{plan.budget.platform} (none is here)'}: {mesh}"


def _rows(plan: Plan) -> str:
    """How they are laid out, and how many of them are empty."""
    fold = plan.estimate.fold
    devices = "" if fold.num_row_ranks == 1 else f"{fold.num_row_ranks} devices x "
    empty = f"; {fold.empty_rows} rows are empty" if fold.empty_rows else ""
    micro_batches = "" if fold.micro_batches == 1 else f"{fold.micro_batches} micro-batches x "
    return f"{fold.num_rows}: {devices}{micro_batches}{fold.local_rows} at once{empty}"


def _sent(plan: Plan) -> str:
    """By a device, for each reason."""
    sent = {
        "all-gather of weights": plan.sent.all_gather,
        "reduce-scatter of gradients": plan.sent.reduce_scatter,
        "all-reduce of gradients": plan.sent.all_reduce,
        "all-reduce of activations": plan.sent.tensor,
    }
    kinds = [f"{what} {_shown(size)}" for what, size in sent.items() if size]
    return f"{_shown(plan.sent.total)} by each device: {', '.join(kinds)}" if kinds else ""


def _parameters(query: MemoryQuery) -> str:
    active = "" if query.num_active == query.num_parameters else f" and {query.num_active:,} compute a token"
    return f"{query.num_parameters:,}, of which {query.num_trained:,} are trained{active}"


def _shown(size: int) -> str:
    return f"{_mebibytes(size) or 0} MiB"


def _mebibytes(size: int) -> str:
    return f"{-(-size // 2**20):,}" if size else ""


def _measured(plan: Plan) -> str:
    measured = plan.measured
    if measured is None:
        return "neither memory nor time"
    if measured.ended != "done":
        return f"{measured.ended} in training steps, with {_shown(measured.peak)}"
    beyond = measured.peak - plan.estimate.totals["train"]
    return f"{_shown(measured.peak)} at most in {measured.num_steps} training steps, {_shown(beyond)} beyond the table"


def _time(plan: Plan) -> str:
    if plan.measured is None:
        return ""
    if plan.seconds is None:
        return "not measured"
    each = plan.measured.seconds_per_step
    sampled = plan.estimate.outline.updates.sampled
    longest = f", answers of {sampled.max_new_tokens} tokens at most" if sampled else ""
    took = f"about {duration(plan.seconds)}: {each:.3g} s per step{longest}"
    return f"{took}; without compilation, evaluation and prediction"


def _verdict(plan: Plan) -> None:
    budget, totals = plan.budget, plan.estimate.totals
    needed, largest = budget.overhead + plan.estimate.peak, max(totals, key=lambda name: totals[name])
    free = "" if plan.free is None else f" ({_shown(plan.free)} free now)"
    needs = f"{_shown(needed)} in all ({largest}), of {_shown(budget.limit)}{free}"
    out(f"{'fits' if plan.fits else 'does not fit'}: {needs}")
    if plan.fits and plan.measured is None:
        out("  by shapes alone: what a framework and its allocator take beside them was not measured")
    if plan.fits and not plan.estimate.activations_known and plan.measured is None:
        out("  and without activations, which this backend does not foresee")
    if plan.fits and plan.free is not None and needed > plan.free:
        out("  but not beside what runs now")
    for change in plan.advice:
        out(f"  would fit with {' '.join(change)}")
    if not plan.fits and not plan.advice:
        out("  neither fewer rows, gradient checkpointing, bfloat16 nor LoRA would make it fit: a smaller model would")
