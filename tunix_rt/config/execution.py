"""The sections that say who computes and where: `backend`, and those of which hardly a field changes a result."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, MinLen

from tunix_rt.config.choices import BackendName, Platform, Precision
from tunix_rt.config.section import Execution, Identity, section

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

    platform: Execution[Platform]
    device: Execution[Annotated[int, Ge(0)]]
    """Index among the platform's devices."""
    threads: Execution[Count | Literal["auto"]]
    """CPU threads of the framework; `auto`: the cores that this process may use (affinity, the container's quota)."""


@section
class CheckpointConfig:
    """When training logs and saves."""

    log_every: Execution[Count]
    """Steps between lines of `metrics.jsonl`: the only moments at which the loop waits for the device."""
    save_every: Execution[Count | None]
    """Steps between checkpoints; null: only at the end."""
    keep: Execution[Count]
    """Newest checkpoints that stay on disk; the best one stays besides."""


@section
class TrackingConfig:
    """What a second process, the sync process, sends to a tracker while the run goes on."""

    kind: Execution[Text]
    """`mlflow`, `none`, or another file of `tracking/stores/`; see `tracking/store.py`."""
    uri: Execution[Text]
    """`sqlite:///file.db`, or any MLflow server."""
    experiment: Execution[Text]
    """The experiment (project) there that the run belongs to."""
    num_traces: Execution[Annotated[int, Ge(0)]]
    """Predictions sent whole: in MLflow as traces, their steps as child spans."""
    log_model: Execution[bool]
    """Also send the model folder."""
    system_metrics: Execution[bool]
    wait_seconds: Execution[Annotated[float, Ge(0)]]
    """How long the end of a run waits for the sync process at most, which then goes on by itself. After a signal nobody
    waits."""


@section
class RunConfig:
    """Folders, and whether to start anew."""

    new: Execution[bool]
    """Run again from nothing, in a folder beside the finished one."""
    root: Execution[Text]
    """Holds the run folders: `<root>/<experiment>/<identity>/`."""
    data: Execution[Text]
    """Holds prepared data and converted models."""
    dvc_paths: Execution[tuple[Text, Text, Text]]
    """Data files that DVC looks at, one a split; where there is none, a source file that it looks at anyway."""
    stop_step: Identity[Count | None] = None
    """Stop training after this step, whatever the clock says: how `reproduce` repeats a time budget. It changes
    when training stops and nothing else, such as the schedule; the model is another one all the same."""


@section
class SweepConfig:
    """What a sweep ranks its members by."""

    metric: Execution[Text]
    """A key of `metrics.json`."""
    direction: Execution[Literal["maximize", "minimize"]]
    preview: Execution[bool]
    """List the members and what they may take, and start nothing; `--dry-run` is the same."""
