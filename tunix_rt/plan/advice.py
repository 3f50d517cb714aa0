"""Finds changes of settings with which an experiment would fit into the memory of its devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.load import check, compose
from tunix_rt.errors import DeviceError, InputError
from tunix_rt.plan.estimate import Estimate, MemoryBudget, fits
from tunix_rt.traces.prepared import PreparedData

Change = tuple[str, ...]
"""Overrides that are applied together."""


def advice(overrides: Sequence[str], found: Estimate, prepared: PreparedData, budget: MemoryBudget) -> list[Change]:
    """Changes that make the experiment fit, each by itself; if none does alone, one combination of them that does.

    Empty: nothing of this kind helps.
    """

    def helps(changes: Sequence[Change]) -> bool:
        """Whether the changed experiment fits; one with an invalid config or mesh does not."""
        change = _joined(changes)
        groups = {key for text in change if "/" in (key := text.partition("=")[0])}
        kept = [text for text in overrides if text.partition("=")[0] not in groups]
        try:
            config = check(compose([*kept, *change]))
            num_devices = config.hardware.num_devices or found.outline.query.mesh.size
            return fits(config, prepared, num_devices, budget.among(num_devices))
        except (InputError, DeviceError):
            return False

    changes, meshes = list(_changes(found, budget)), list(_meshes(found))
    alone = [change for change in changes if helps([change])]
    alone += islice((mesh for mesh in meshes if helps([mesh])), 1)  # the fewest devices
    if alone:
        return alone
    changes += next(([*mesh] for mesh in ([], *([mesh] for mesh in meshes)) if helps([*changes, *mesh])), [])
    if not helps(changes):
        return []
    for change in changes:  # drop what is not needed
        fewer = [other for other in changes if other is not change]
        changes = fewer if helps(fewer) else changes
    return [_joined(changes)]


def _joined(changes: Sequence[Change]) -> Change:
    """All changes as one; if several set the same key, the last wins."""
    return tuple({text.partition("=")[0]: text for change in changes for text in change}.values())


def _changes(found: Estimate, budget: MemoryBudget) -> Iterator[Change]:
    """Candidate changes, as overrides; the number of rows per update stays the same."""
    config = found.outline.config
    over = {name for name, total in found.totals.items() if budget.overhead + total > budget.limit}
    rows = found.fold.local_rows
    if "train" in over and not config.backend.gradient_checkpointing:
        yield ("backend.gradient_checkpointing=true",)
    if "train" in over and rows > 1 and config.hardware.local_batch_size != "auto":
        fewer = max(size for size in range(1, rows) if rows % size == 0)
        for size in dict.fromkeys((fewer, 1)):
            yield (f"hardware.local_batch_size={size}",)
    if "predict" in over and config.generation.batch_size > 1:
        for size in dict.fromkeys((config.generation.batch_size // 2, 1)):
            yield (f"generation.batch_size={size}",)
    sampled = found.outline.query.sampled
    if "sample" in over and sampled is not None and sampled.num_prompts > 1:
        for size in dict.fromkeys((sampled.num_prompts // 2, 1)):
            yield (f"objective.rollout.batch_size={size}",)
    if config.backend.precision == "float32":
        yield ("backend.precision=bfloat16",)
    if config.model.adapter is None:
        yield ("model/adapter=lora",)
    elif config.model.adapter.quantize is None:
        yield ("model.adapter.quantize=nf4",)


def _meshes(found: Estimate) -> Iterator[Change]:
    """Candidate meshes: these devices with the weights shared out among them, then more devices."""
    config, mesh = found.outline.config, found.outline.query.mesh
    if not BACKENDS[config.backend.name].devices:
        return
    for times in (1, 2, 4, 8, 16):
        shard, declared = mesh.num_row_ranks * times, config.hardware.mesh
        more = () if times == 1 else (f"hardware.devices={mesh.size * times}",)
        data = () if declared.data == -1 else ("hardware.mesh.data=1",)
        if shard > mesh.shard:
            yield (*more, *data, *(() if declared.shard == -1 else (f"hardware.mesh.shard={shard}",)))
