"""The sections that say what computes and where: `backend`, and those in which hardly any field changes a result."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen
from pydantic import ByteSize

from tunix_rt.config.choices import BackendName, Platform, Precision
from tunix_rt.config.gate import GateConfig
from tunix_rt.config.pairs import PairsConfig
from tunix_rt.config.section import Count, Execution, Identity, Natural, Steps, Text, Unit, section

Paths = Text | tuple[Text, ...]


@section
class BackendConfig:
    """The framework and its numerics."""

    name: BackendName
    """The framework that computes; what each can do is in docs/backends.md."""
    precision: Precision | Literal["auto"]
    """Precision of the computation; master weights and optimizer state are always float32. `auto`: the faster one on
    this device, measured once; a run records which, as if it had been declared."""
    chosen_by: Execution[Text | None] = None
    """Filled in where `precision` was `auto`: the rates that decided."""
    gradient_checkpointing: bool = False
    """Keep only the input of each layer and recompute the layer in the backward pass (arXiv 1604.06174):
    less memory, more time, the same gradients except for rounding."""

    @property
    def decided(self) -> Precision:
        """The precision, which is not `auto` any more where something is computed (`precision.decided`)."""
        assert self.precision != "auto", "an experiment is decided before it is identified"
        return self.precision


@section
class MeshConfig:
    """How the devices share the work; the product is their number. None of it changes a result but for rounding."""

    data: Execution[Count | Literal[-1]] = -1
    """Groups of devices that hold the whole model between them, and each compute some rows; -1: what is left."""
    shard: Execution[Count | Literal[-1]] = 1
    """Devices that share weights, gradients and optimizer state out among them, and compute different rows; -1: what is
    left."""
    tensor: Execution[Count] = 1
    """Devices that each multiply a part of every matrix, for the same rows."""

    def __post_init__(self) -> None:
        if (self.data, self.shard) == (-1, -1):
            raise ValueError("only one of data and shard can be what is left (-1)")

    def filled(self, num_devices: int) -> tuple[int, int, int] | None:
        """Devices along data, shard and tensor, with -1 as what is left; None if so many devices cannot fill it."""
        sizes = (self.data, self.shard, self.tensor)
        left = num_devices // math.prod(size for size in sizes if size > 0)
        data, shard, tensor = (left if size == -1 else size for size in sizes)
        return (data, shard, tensor) if data * shard * tensor == num_devices else None


@section
class HardwareConfig:
    """Where it runs. The only section that allows `auto`; what was found is recorded in the run folder."""

    platform: Execution[Platform]
    """The kind of device; `auto`: the fastest that the backend finds."""
    devices: Execution[Count | Literal["all"] | Annotated[tuple[Natural, ...], MinLen(1)]] = 1
    """How many of that kind, the first ones; `all` of them; or the numbers of some: [2, 3]."""
    mesh: MeshConfig = MeshConfig()
    local_batch_size: Execution[Annotated[Count, Unit("rows")] | Literal["auto"]] = "auto"
    """Rows that a device computes at once; an update has as many micro-batches as its rows then need. `auto`: as many
    as its memory holds by estimate, halved when it is not enough."""
    threads: Execution[Annotated[Count, Unit("threads")] | Literal["auto"]]
    """CPU threads of the framework, of all its processes on this machine together; `auto`: the cores that this process
    may use (affinity, the container's quota)."""

    @property
    def num_devices(self) -> int | None:
        """How many are declared; None: all that are found."""
        if isinstance(self.devices, tuple):
            return len(self.devices)
        return None if self.devices == "all" else self.devices


@section
class CheckpointConfig:
    """When training logs and saves."""

    log_every: Execution[Steps]
    """Steps between lines of `metrics.jsonl`; the loop waits for the device only then."""
    save_every: Execution[Steps | None]
    """Steps between checkpoints; null: only at the end."""
    keep: Execution[Annotated[Count, Unit("checkpoints")]]
    """Number of newest checkpoints kept on disk, in addition to the best one."""
    max_shard_size: Execution[ByteSize] = ByteSize(5_000_000_000)
    """A model, or an optimizer's state, of more bytes is saved in several files with an index, as by transformers:
    5GB, 500MB."""


@section
class TrackingConfig:
    """What a second process, the sync process, sends to trackers during the run."""

    stores: Execution[dict[Text, dict[str, Any]]]
    """Where it is sent: name of a store → its own settings (docs/tracking.md). `mlflow`, `tensorboard`, `wandb`, or
    another that is installed; `tracking=[mlflow,tensorboard]` chooses several, `tracking=none` none."""
    uri: Execution[Text]
    """MLflow's store, where registered models are too: `sqlite:///file.db`, or any MLflow server."""
    experiment: Execution[Text]
    """The tracker's experiment (project) that the run belongs to."""
    num_traces: Execution[Annotated[Natural, Unit("predictions")]]
    """Number of predictions sent in full: in MLflow as traces, with their steps as child spans."""
    log_model: Execution[bool]
    """Also send the model folder."""
    system_metrics: Execution[bool]
    """Also send the use of processor, memory and disk while it trains."""
    wait_seconds: Execution[Annotated[float, Ge(0), Unit("seconds")]]
    """Maximum time that a run waits at its end for the sync process, which then continues by itself. After a signal,
    the run does not wait."""


@section
class RunConfig:
    """Folders, and whether to start over."""

    new: Execution[bool]
    """Run again from scratch, in a folder next to the finished one."""
    root: Execution[Text]
    """Holds the run folders: `<root>/<experiment>/<identity>/`."""
    data: Execution[Text]
    """Holds prepared data and converted models."""
    dvc_paths: Execution[tuple[Paths, Paths, Paths]]
    """What DVC tracks of the data, one file or folder per split (of several, DVC takes none); for a split without
    one, a source file that it tracks anyway."""
    dvc_model: Execution[Text | None] = None
    """What DVC tracks of the initial weights: the model of `model.source`, if that is an experiment; else a source file
    that it tracks anyway."""
    dvc_first: Execution[tuple[Text, ...]] = ()
    """The experiment that DVC runs first, as a stage of its own: that of `model.source`, else of `objective.teacher`;
    empty: none."""
    gates: Execution[tuple[GateConfig, ...]] = ()
    """What the result is compared with, by `gate RUN` and by a stage of DVC's pipeline: [{against: RUN,
    must_not_drop_by: 0.01}]; empty: nothing."""
    pairs: Execution[tuple[PairsConfig, ...]] = ()
    """Preference pairs that DVC's pipeline makes of the answers, each by a stage: [{to: data/raw/own}]; empty: none."""
    stop_step: Identity[Steps | None] = None
    """Stop training after this step, whatever the clock says: this is how `reproduce` repeats a time budget. It changes
    only when training stops, not for example the schedule; the resulting model differs all the same."""


@section
class Published:
    """Published results, drawn beside a sweep's own."""

    source: Execution[Text]
    """Where they are from."""
    x: Execution[tuple[float, ...]]
    """Values of the key that is on the axis."""
    lines: Execution[dict[Text, tuple[float | None, ...]]]
    """Value of the key whose values are the lines → the metric for each `x`; null: not published."""

    def __post_init__(self) -> None:
        for name, values in self.lines.items():
            if len(values) != len(self.x):
                raise ValueError(f"lines.{name}: {len(values)} values, but x has {len(self.x)}")


@section
class SweepConfig:
    """What a sweep ranks its members by."""

    metric: Execution[Text]
    """A key of `metrics.json`."""
    direction: Execution[Literal["maximize", "minimize"]]
    """Whether a larger or a smaller metric is better."""
    preview: Execution[bool]
    """List the members and how long they may take, and start nothing; same as `--dry-run`."""
    published: Execution[Published | None] = None
    """Drawn beside the curves of a sweep over one or two keys (docs/sweeps.md)."""
