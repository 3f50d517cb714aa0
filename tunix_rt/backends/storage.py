"""Load, restore and save, alike in every backend: from model folders, adapters and moments in files, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunix_rt.backends import heap
from tunix_rt.backends.interface import State, TrainingSetup
from tunix_rt.config.choices import Quantization
from tunix_rt.config.execution import HardwareConfig
from tunix_rt.files import JsonObject
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
    OPTIMIZER,
    Weights,
    config_to_save,
    read_architecture,
    read_moments,
    read_stop_ids,
    read_weights,
    write_model,
)
from tunix_rt.models.quantize import Quantized, read_quantized
from tunix_rt.models.tensor_file import write_weights


@dataclass(frozen=True, slots=True)
class Moments:
    """The optimizer's moments by weight name, float32, and the number of updates."""

    first: Weights
    second: Weights
    count: int


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
    """The file of the moments; None: they start at 0."""

    def read_weights(self) -> tuple[Weights, dict[str, Quantized]]:
        """The weights in `folder`, and the matrices that are held quantised. Raises as `folder.read_weights`."""
        return (read_weights(self.folder), {}) if self.quantize is None else read_quantized(self.folder, self.quantize)

    def read_moments(self) -> Moments:
        """The moments in `optimizer`, which any backend saved. Raises as `folder.read_moments`."""
        assert self.optimizer is not None
        shapes = tensor_shapes(self.architecture) if self.adapter is None else self.adapter.shapes
        tensors = read_moments(self.optimizer, shapes)
        first, second = ({name: tensors[f"{kind}.{name}"] for name in shapes} for kind in "mv")
        return Moments(first, second, int(tensors["count"]))


def check_adapter(stored: Stored, adapter: bool) -> None:
    """Raises ValueError if what is asked for is a model without its adapter, and it has none."""
    if not adapter and stored.adapter is None:
        raise ValueError("this state has no adapter to leave out: its weights are trained themselves")


class StoredBackend(ABC):
    """The methods of `interface.Backend` that read and write files; they are documented there."""

    def __init__(self, hardware: HardwareConfig) -> None:
        self.may_shrink = hardware.local_batch_size == "auto"
        self.rows_at_once = None if hardware.local_batch_size == "auto" else hardware.local_batch_size
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="save")

    @abstractmethod
    def _state(self, stored: Stored, adapter: Weights | None, training: TrainingSetup | None) -> State:
        """A state of these files; `adapter`: the tensors of `stored.adapter`."""

    @abstractmethod
    def _snapshot(self, state: Any) -> tuple[Stored, Weights, Moments | None]:
        """What the state was made from, and host copies of its trained tensors, by their names in files."""

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
            return self._make(folder, model_folder, training, optimizer=folder / OPTIMIZER)
        base = training.adapter.recorded
        check_base(folder, model_folder, base.sha256)
        check_quantize(folder, base.quantize)
        found = read_adapter(folder, read_architecture(model_folder))
        return self._make(model_folder, model_folder, training, found, base, folder / OPTIMIZER)

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
        )
        return self._state(stored, tensors, training)

    def save(self, state: State, folder: Path) -> Future[dict[str, str]]:
        heap.trim_between_phases("save")
        return self._writer.submit(_write, folder, *self._snapshot(state))


def _write(folder: Path, stored: Stored, tensors: Weights, moments: Moments | None) -> dict[str, str]:
    if stored.adapter is None or stored.base is None:
        files = write_model(folder, stored.config, tensors)
    else:
        files = write_adapter(folder, stored.architecture, stored.adapter, tensors, stored.base)
    if moments is None:
        return files
    named = {f"m.{name}": tensor for name, tensor in moments.first.items()}
    named |= {f"v.{name}": tensor for name, tensor in moments.second.items()}
    count = np.array(moments.count, np.int64)
    return files | {OPTIMIZER: write_weights(folder / OPTIMIZER, named | {"count": count})}
