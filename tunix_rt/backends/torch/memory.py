"""Memory of a training step under torch, from shapes alone: the step's own code runs on tensors without storage.

Fake tensors have shape, dtype and device, but no data. `_Watch` sees every operation and tracks the storages that
are alive, so that the peak follows from the code itself. What the allocator leaves unused between them is not
included.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tunix_rt.backends.fold import Fold
from tunix_rt.backends.memory import FLOAT, MemoryQuery, largest_batch
from tunix_rt.backends.optimizers.rule import trained_tensors
from tunix_rt.backends.torch import step
from tunix_rt.backends.torch.adapter import Lora, masked
from tunix_rt.backends.torch.decoder import Decoder
from tunix_rt.backends.torch.optimizer import Optimizer, create
from tunix_rt.backends.torch.quantized import QuantizedMatrix
from tunix_rt.config.choices import Quantization
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.quantize import NF4_PAIRS, codes_dtype, codes_shape


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.most = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        self.most = max(self.most, self.alive)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self.alive += size

        def forget() -> None:
            self.alive -= size
            del self._known[key]

        self._known[key] = weakref.finalize(storage, forget)


def device_memory(index: int) -> int:
    """Bytes of a GPU."""
    return int(torch.cuda.get_device_properties(index).total_memory)


def peak_memory(index: int) -> int:
    """The most bytes that this process had on a GPU, including what the allocator reserves."""
    return int(torch.cuda.max_memory_reserved(index))


def activations(query: MemoryQuery) -> int:
    """Peak bytes of a step on the batch with the most targets, besides weights, gradients and moments."""
    try:
        with _settings_alone():
            return _activations(query)
    except (AttributeError, ImportError):  # of a torch whose fake tensors need more
        return _activations(query)


def _activations(query: MemoryQuery) -> int:
    batch = largest_batch(query)
    fold = Fold.of(len(batch.tokens), query.rows_at_once)
    with FakeTensorMode(), _Watch() as watch:
        model, optimizer = _state(query)
        before, watch.most = watch.alive, watch.alive
        adapters = masked(model.adapter, 0, 0, fold.rows())
        step.train_step(model, optimizer, fold.local(batch), 1e-3, 1.0, adapters)
    return max(0, int(watch.most - before) - FLOAT * query.num_trained)


class _Settings(ModuleType):
    """Stands in for torch's compiler: its settings, and functions that are as they were, since nothing is compiled."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = [str(Path(torch.__file__).parent / "_dynamo")]
        self.asked: list[Any] = []

    def disable(self, function: Any, *_: Any, **__: Any) -> Any:
        """What torch wraps modes of dispatch in, so that they are not compiled."""
        self.asked.append(function)
        return function


@contextmanager
def _settings_alone() -> Iterator[None]:
    """Fake tensors ask torch's compiler for its settings, one module: without this they import all of it, a second."""
    name = "torch._dynamo"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = torch._dynamo = package = _Settings(name)
    try:
        yield
    finally:
        del torch._dynamo
        for part in [part for part in sys.modules if part == name or part.startswith(f"{name}.")]:
            del sys.modules[part]
        for function in package.asked:  # torch keeps the answer there, and would not ask its compiler later
            vars(function).pop("__dynamo_disable", None)


def _state(query: MemoryQuery) -> tuple[Decoder, Optimizer]:
    """The state as `backend.load` creates it, with fake tensors."""
    frozen = query.adapter is not None
    weights, quantized = {}, {}
    for tensor in tensors_of(query.architecture):
        if query.quantize is not None and tensor.takes_adapter:
            quantized[tensor.name] = _blank(query.quantize, tensor.matrix_shape)
            continue
        half = frozen and query.backend.precision == "bfloat16" and tensor.is_layer_matrix
        dtype = torch.bfloat16 if half else torch.float32
        weights[tensor.name] = torch.empty(tensor.shape, dtype=dtype, requires_grad=not frozen)
    lora = None
    if query.adapter is not None:
        arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in query.adapter.shapes.items()}
        lora = Lora.of(query.adapter, arrays, torch.device("cpu"), trainable=True)
    model = Decoder(
        architecture=query.architecture,
        weights=weights,
        adapter=lora,
        precision=query.backend.decided,
        quantized=quantized,
        gradient_checkpointing=query.backend.gradient_checkpointing,
        even_experts=True,
    )
    return model, create(query.optimizer, trained_tensors(query.architecture, query.adapter), model.trained)


def _blank(kind: Quantization, shape: tuple[int, int]) -> QuantizedMatrix:
    codes = torch.empty(codes_shape(kind, shape), dtype=getattr(torch, codes_dtype(kind).name))
    return QuantizedMatrix(codes, torch.empty(len(codes)), torch.empty(NF4_PAIRS.shape), shape)
