"""Load, restore and save, alike in every backend: from model folders, adapters and moments in files, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunix_rt.backends import heap
from tunix_rt.backends.interface import State, TrainingSetup
from tunix_rt.backends.optimizers.registry import rule_of
from tunix_rt.backends.optimizers.rule import kept_of, trained_tensors
from tunix_rt.config.choices import Quantization
from tunix_rt.config.execution import HardwareConfig
from tunix_rt.files import JsonObject, write_json
from tunix_rt.models.adapter import Adapter
from tunix_rt.models.adapter_folder import (
    Base,
    check_quantize,
    read_adapter,
    read_base,
    start,
    write_adapter,
)
from tunix_rt.models.content import check_base
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.registry import tensor_shapes
from tunix_rt.models.folder import (
    CONFIG,
    MODEL,
    Weights,
    config_to_save,
    read_architecture,
    read_stop_ids,
    read_weights,
    write_model,
)
from tunix_rt.models.moments import COUNT, OPTIMIZER, Kept, moment_specs, parts_of_moments, read_moments
from tunix_rt.models.moments import Moments as Moments
from tunix_rt.models.parts import PartOf, Shape, whole
from tunix_rt.models.quantize import Quantized, read_quantized
from tunix_rt.models.shards import MAX_SHARD_SIZE, ShardLayout, write_tensor_parts, write_tensors


@dataclass(frozen=True, slots=True)
class Stored:
    """The files that a state is made from, and what `save` repeats of them."""

    folder: Path
    """Holds the weights; under an adapter, those of its base."""
    architecture: Architecture
    config: JsonObject
    """config.json as it will be saved."""
    stop_ids: tuple[int, ...]
    adapter: Adapter | None
    base: Base | None
    """The adapter's."""
    quantize: Quantization | None
    """How the matrices of the layers are held; None: in full."""
    optimizer: Path | None
    """The folder with the files of the moments; None: they start at 0."""
    kept: Kept
    """What the optimizer keeps; without training, nothing."""

    @property
    def trained_shapes(self) -> dict[str, Shape]:
        """The whole shapes of the tensors that are trained and saved, by their names in files."""
        return tensor_shapes(self.architecture) if self.adapter is None else dict(self.adapter.shapes)

    def read_weights(self, part_of: PartOf = whole) -> tuple[Weights, dict[str, Quantized]]:
        """The weights in `folder`, and the matrices that are held quantised. Raises as `folder.read_weights`.

        `part_of(name, shape of the whole tensor)` says which part of each a process holds: only that is read, so that
        none ever has the whole model in memory. Of a quantised matrix the shape is that of its codes, and the part is
        one of their rows (`read_quantized`). The adapter's tensors are not among these; each process has all of them.
        """
        if self.quantize is None:
            return read_weights(self.folder, part_of), {}
        return read_quantized(self.folder, self.quantize, part_of)

    def read_moments(self, part_of: PartOf = whole) -> Moments:
        """The moments in `optimizer`, which any backend saved on any number of devices. Raises as
        `moments.read_moments`.

        `part_of(name, shape)`: as for `read_weights`; what is shaped as its weight is read in the same part.
        """
        assert self.optimizer is not None
        return read_moments(self.optimizer, self.kept, parts_of_moments(part_of, self.trained_shapes))


def check_adapter(stored: Stored, adapter: bool) -> None:
    """Raises ValueError if what is asked for is a model without its adapter, and it has none."""
    if not adapter and stored.adapter is None:
        raise ValueError("this state has no adapter to leave out: its weights are trained themselves")


class StoredBackend(ABC):
    """The methods of `interface.Backend` that read and write files; they are documented there."""

    def __init__(self, hardware: HardwareConfig, leads: bool = True) -> None:
        """`leads`: whether this process writes what is written once (`World.leads`)."""
        self._leads = leads
        self.may_shrink = hardware.local_batch_size == "auto"
        self.rows_at_once = None if hardware.local_batch_size == "auto" else hardware.local_batch_size
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="save")

    @abstractmethod
    def _state(self, stored: Stored, adapter: Weights | None, training: TrainingSetup | None) -> State:
        """A state of these files; `adapter`: the tensors of `stored.adapter`."""

    @abstractmethod
    def _snapshot(self, state: Any) -> tuple[Stored, Weights, Moments | None]:
        """What the state was made from, and host copies of its trained tensors, by their names in files: whole ones, or
        of each the part that `_parts` says. A process copies what it writes and no more: where several hold the same
        part, all but one leave its tensors out.
        """

    def _parts(self, state: Any) -> PartOf | None:
        """Which part of each trained tensor `_snapshot` copies in this process; None: the whole tensors, which are then
        written by the process that leads, alone (so it is with an adapter). All processes write at the same time.
        """
        return None

    def load(
        self,
        model_folder: Path,
        training: TrainingSetup | None,
        adapter: Path | None = None,
        quantize: Quantization | None = None,
    ) -> State:
        if training is not None and training.adapter is not None:
            setup = training.adapter
            if setup.config.path is not None:
                given = Path(setup.config.path).expanduser()
                check_base(given, model_folder, setup.base.sha256)
                check_quantize(given, setup.config.quantize)
            fresh = start(setup.config, read_architecture(model_folder), training.seed)
            return self._make(model_folder, model_folder, training, fresh, setup.recorded)
        if adapter is None:
            return self._make(model_folder, model_folder, training, quantize=quantize)
        found, base = read_adapter(adapter, read_architecture(model_folder)), read_base(adapter)
        return self._make(model_folder, model_folder, training, found, base, quantize=quantize)

    def restore(self, folder: Path, model_folder: Path, training: TrainingSetup) -> State:
        if training.adapter is None:
            return self._make(folder, model_folder, training, optimizer=folder)
        base = training.adapter.recorded
        check_base(folder, model_folder, base.sha256)
        check_quantize(folder, base.quantize)
        found = read_adapter(folder, read_architecture(model_folder))
        return self._make(model_folder, model_folder, training, found, base, folder)

    def _make(
        self,
        folder: Path,
        model_folder: Path,
        training: TrainingSetup | None,
        attached: tuple[Adapter, Weights] | None = None,
        base: Base | None = None,
        optimizer: Path | None = None,
        quantize: Quantization | None = None,
    ) -> State:
        """Weights of `folder`, frozen under `attached`; stop ids of `model_folder`."""
        heap.trim_between_phases("load")
        adapter, tensors = attached or (None, None)
        stored = Stored(
            folder=folder,
            architecture=read_architecture(folder),
            config=config_to_save(folder),
            stop_ids=read_stop_ids(model_folder),
            adapter=adapter,
            base=base,
            quantize=quantize or (None if base is None else base.quantize),
            optimizer=optimizer,
            kept={} if training is None else self._kept(training, read_architecture(folder), adapter),
        )
        return self._state(stored, tensors, training)

    @staticmethod
    def _kept(training: TrainingSetup, architecture: Architecture, adapter: Adapter | None) -> Kept:
        return kept_of(rule_of(training.optimizer), trained_tensors(architecture, adapter))

    def save(self, state: State, folder: Path, max_shard_size: int = MAX_SHARD_SIZE) -> Future[dict[str, str]]:
        heap.trim_between_phases("save")
        part_of = self._parts(state)
        if part_of is not None:
            return self._writer.submit(
                _write_parts, folder, max_shard_size, part_of, self._leads, *self._snapshot(state)
            )
        if self._leads:
            return self._writer.submit(_write, folder, max_shard_size, *self._snapshot(state))
        nothing: Future[dict[str, str]] = Future()
        nothing.set_result({})
        return nothing


def _write(
    folder: Path, max_shard_size: int, stored: Stored, tensors: Weights, moments: Moments | None
) -> dict[str, str]:
    if stored.adapter is None or stored.base is None:
        files = write_model(folder, stored.config, tensors, max_shard_size)
    else:
        files = write_adapter(folder, stored.architecture, stored.adapter, tensors, stored.base)
    if moments is None:
        return files
    named = moments.tensors()
    ordered = {name: named[name] for name in moment_specs(stored.kept)}
    return files | write_tensors(folder, OPTIMIZER, ordered, max_shard_size)


def _write_parts(
    folder: Path,
    max_shard_size: int,
    part_of: PartOf,
    leads: bool,
    stored: Stored,
    tensors: Weights,
    moments: Moments | None,
) -> dict[str, str]:
    """The same by several processes, of which this one has parts. `shards.finish` completes what all have written."""
    shapes = stored.trained_shapes
    layout = ShardLayout.of(MODEL, {name: ("float32", shape) for name, shape in shapes.items()}, max_shard_size)
    files = write_tensor_parts(folder, layout, tensors, part_of, leads)
    if moments is not None:
        layout = ShardLayout.of(OPTIMIZER, moment_specs(stored.kept), max_shard_size)
        named = {name: tensor for name, tensor in moments.tensors().items() if leads or name != COUNT}
        files |= write_tensor_parts(folder, layout, named, parts_of_moments(part_of, shapes), leads)
    return files | ({CONFIG: write_json(folder / CONFIG, stored.config)} if leads else {})
