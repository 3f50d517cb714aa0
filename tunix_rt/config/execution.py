"""The sections that say who computes and where: `backend` (identity), and what never enters the identity."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, MinLen

from tunix_rt.config.choices import BackendName, Platform, Precision
from tunix_rt.config.section import section

Count = Annotated[int, Gt(0)]
Text = Annotated[str, MinLen(1)]


@section
class BackendConfig:
    """The framework and its numerics."""

    name: BackendName
    precision: Precision
    """Of the computation; master weights and optimizer state are float32 either way."""
    gradient_checkpointing: bool = False
    """Keep only the input of each layer and compute the layer again in the backward pass (arXiv 1604.06174):
    less memory, more time, the same gradients but for rounding."""


@section
class HardwareConfig:
    """Where it runs. The only section in which `auto` exists; what was found is recorded in the run folder."""

    platform: Platform
    device: Annotated[int, Ge(0)]
    """Index among the platform's devices."""
    threads: Count | Literal["auto"]
    """CPU threads of the framework; `auto`: the cores that this process may use (affinity, the container's quota)."""


@section
class CheckpointConfig:
    """When training logs and saves."""

    log_every: Count
    """Steps between lines of `metrics.jsonl`: the only moments at which the loop waits for the device."""
    save_every: Count | None
    """Steps between checkpoints; null: only at the end."""
    keep: Count
    """Newest checkpoints that stay on disk; the best one stays besides."""


@section
class TrackingConfig:
    """What a second process sends to MLflow while the run goes on."""

    kind: Literal["mlflow", "none"]
    uri: Text
    """`sqlite:///file.db`, or any MLflow server."""
    experiment: Text
    """Experiment in MLflow."""
    num_traces: Annotated[int, Ge(0)]
    """Predictions sent as MLflow traces, their steps as child spans."""
    log_model: bool
    """Also send the model folder."""
    system_metrics: bool
    wait_seconds: Annotated[float, Gt(0)]
    """How long the end of a run waits for the follower before it says how to send the rest later."""


@section
class RunConfig:
    """Folders, and whether to start anew."""

    new: bool
    """Run again from nothing, in a folder beside the finished one."""
    root: Text
    """Holds the run folders: `<root>/<experiment>/<identity>/`."""
    data: Text
    """Holds prepared data and converted models."""
    dvc_paths: tuple[Text, Text, Text]
    """Data files that DVC looks at, one a split; where there is none, a source file that it looks at anyway."""
    stop_step: Count | None = None
    """Stop training after this step, whatever the clock says: how `reproduce` repeats a time budget. It changes
    when training stops and nothing else, such as the schedule."""


@section
class SweepConfig:
    """What a sweep ranks its members by."""

    metric: Text
    """A key of `metrics.json`."""
    direction: Literal["maximize", "minimize"]
    preview: bool
    """List the members and what they may take, and start nothing; `--dry-run` is the same."""
