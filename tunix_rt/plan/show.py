"""A plan as a person reads it."""

from __future__ import annotations

from tunix_rt.backends.memory import Part
from tunix_rt.plan.make import Plan
from tunix_rt.terminal import out, table

COLUMNS: dict[Part, str] = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "kv_cache": "KV cache",
    "copies": "copies",
    "framework": "framework",
}
PHASES = {
    "load": "load",
    "train": "train",
    "evaluate": "evaluate: loss",
    "sample": "evaluate: answers",
    "save": "save",
    "predict": "predict",
}


def show(plan: Plan) -> None:
    """Print it to stdout."""
    outline = plan.estimate.outline
    work = outline.work
    rows = [
        ("backend", f"{outline.config.backend.name} on {', '.join(plan.devices)}, {outline.config.backend.precision}"),
        ("parameters", f"{work.num_parameters:,}, of which {work.num_trained:,} are trained"),
        (
            "epoch",
            f"{outline.num_tokens:,} tokens in {outline.steps_per_epoch:,.1f} steps, rows of {outline.row_length}",
        ),
        ("training", f"{outline.num_steps:,} steps, {outline.num_epochs:g} epochs"),
        ("time", _time(plan)),
    ]
    table(outline.config.name, (), rows)
    parts = [part for part in COLUMNS if any(part in phase.parts for phase in plan.estimate.phases)]
    table(
        "memory of one device above what is resident after import, MiB",
        ("phase", *(COLUMNS[part] for part in parts), "together"),
        [
            (PHASES[phase.name], *(_mebibytes(phase.parts.get(part, 0)) for part in parts), _mebibytes(phase.total))
            for phase in plan.estimate.phases
        ],
        right=range(1, len(parts) + 2),
        whole=(0, len(parts) + 1),
    )
    _verdict(plan)


def _shown(size: int) -> str:
    return f"{_mebibytes(size) or 0} MiB"


def _mebibytes(size: int) -> str:
    return f"{-(-size // 2**20):,}" if size else ""


def _time(plan: Plan) -> str:
    if plan.measured is None or plan.seconds is None:
        return "not measured"
    each = plan.measured.seconds_per_step
    return f"about {_spoken(plan.seconds)}: {each:.3g} s a step; without compilation, evaluation and prediction"


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _verdict(plan: Plan) -> None:
    room, largest = plan.room, plan.estimate.largest
    needs = f"{_shown(room.resident + largest.total)} in all ({PHASES[largest.name]}), of {_shown(room.limit)}"
    if plan.fits:
        out(f"fits: {needs}")
        return
    out(f"does not fit: {needs}")
    for change in plan.advice:
        out(f"  would fit with {' '.join(change)}")
    if not plan.advice:
        out("  neither fewer rows, gradient checkpointing, bfloat16 nor LoRA would make it fit: a smaller model would")
