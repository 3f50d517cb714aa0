"""What a run takes under torch, from shapes alone: its own code runs on tensors without storage, which are counted.

Fake tensors know shape, type and device, and hold nothing. `_Watch` sees every operation and keeps account of the
storages that are alive, so that the most that was alive at once follows from the code itself, optimizer included.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tunix_rt.backends.memory import FLOAT, Answers, Parts, Phase, Work
from tunix_rt.backends.torch import generate, step
from tunix_rt.backends.torch.adapter import Lora, masked
from tunix_rt.backends.torch.attention import Cache
from tunix_rt.backends.torch.decoder import Decoder, kinds_of
from tunix_rt.backends.torch.optimizer import AdamW
from tunix_rt.batches.batch import Batch
from tunix_rt.models.families.registry import tensor_shapes, tensors_of

FRAMEWORK = 40 << 20
"""What kernels leave behind: thread stacks, packed matrices, allocator (measured on the CPU: 35 to 50 MiB)."""
HOLES = {(False, False): 0.65, (True, False): 0.42, (False, True): 0.12, (True, True): 1.6}
"""(With an adapter, with gradient checkpointing) → what is free between the tensors that a step holds longest, as a
share of them: of its gradients, or with an adapter, whose gradients are small, of its activations. Torch asks glibc for
aligned memory, and what was given back has room only for something smaller. Measured on the CPU with SmolLM2-135M,
1 to 4 rows of 448 tokens: 0.62 to 0.73, 0.3 to 0.44, up to 0.3, 1.66."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that are alive, and the most there ever were."""

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


def phases(work: Work) -> list[Phase]:
    """Every phase of a run, in order."""
    with FakeTensorMode(), _Watch() as watch:
        return list(_phases(work, watch))


def _phases(work: Work, watch: _Watch) -> Iterator[Phase]:
    file = work.architecture.num_parameters * FLOAT
    largest = max(int(np.prod(shape)) for shape in tensor_shapes(work.architecture).values()) * FLOAT
    model, optimizer = _state(work)
    weights = sum(_size(tensor) for tensor in model.weights.values())
    trained = _held(model.trained)
    moments = 2 * trained
    if model.adapter is not None:
        weights += trained
    held: Parts = {"weights": weights, "optimizer": moments, "framework": FRAMEWORK}
    # The file is mapped while it is read, and its arrays are then taken over one by one.
    copies = max(2 * file, file + largest) - weights
    yield Phase("load", held if copies < moments else held | {"optimizer": 0, "copies": copies})
    most = 0
    for batch in _extremes(work):
        before, watch.most = watch.alive, watch.alive
        adapters = masked(model.adapter, 0, 0, len(batch.tokens))
        step.train_step(model, optimizer, batch, 1e-3, 1.0, work.backend.precision, adapters)
        most = max(most, watch.most - before)
    gradients = _held(model.trained)
    activations = max(most - gradients, 0)
    share = HOLES[work.adapter is not None, work.backend.gradient_checkpointing]
    holes = FRAMEWORK + int(share * (gradients if work.adapter is None else activations))
    yield Phase("train", held | {"gradients": gradients, "activations": activations, "framework": holes})
    held |= {"gradients": gradients}
    if work.evaluation is not None:
        with _measured(watch) as measured:
            step.logprobs(model, work.evaluation, work.backend.precision)
        yield Phase("evaluate", held | {"activations": measured[0]})
    if work.sampled is not None:
        yield Phase("sample", _answering(work, model, work.sampled, watch) | held)
    yield Phase("save", held | {"copies": trained + moments})
    del optimizer
    if work.predicted is not None:
        yield Phase(
            "predict", _answering(work, model, work.predicted, watch) | {"weights": weights, "framework": FRAMEWORK}
        )


def _extremes(work: Work) -> list[Batch]:
    """The micro-batch with the most targets and the one with the fewest traces: what a step takes lies in them.

    Where there are more in a step, it is taken twice: the second sees the gradients of the first.
    """
    micros = [_repeated(batch, index) for batch in work.batches for index in range(len(batch.tokens))]
    targets = max(micros, key=lambda micro: np.count_nonzero(micro.weights))
    longest = min(micros, key=lambda micro: int(micro.segments.max(axis=2).sum()))
    return [targets] if targets is longest else [targets, longest]


def _repeated(batch: Batch, index: int) -> Batch:
    """Micro-batch `index`, twice where there are several."""
    count = min(len(batch.tokens), 2)
    return Batch(*(np.repeat(getattr(batch, field.name)[[index]], count, axis=0) for field in fields(Batch)))


def _state(work: Work) -> tuple[Decoder, AdamW]:
    """As `backend.load` makes it, of nothing."""
    frozen = work.adapter is not None
    weights = {}
    for tensor in tensors_of(work.architecture):
        half = frozen and work.backend.precision == "bfloat16" and tensor.layer is not None and len(tensor.shape) == 2
        dtype = torch.bfloat16 if half else torch.float32
        weights[tensor.name] = torch.empty(tensor.shape, dtype=dtype, requires_grad=not frozen)
    model = Decoder(work.architecture, weights, gradient_checkpointing=work.backend.gradient_checkpointing)
    if work.adapter is not None:
        arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in work.adapter.shapes.items()}
        model = replace(model, adapter=Lora.of(work.adapter, arrays, torch.device("cpu"), trainable=True))
    return model, AdamW.fresh(work.optimizer, kinds_of(model), model.trained)


def _answering(work: Work, model: Decoder, answers: Answers, watch: _Watch) -> Parts:
    """Copies of the matrices, the cache, and what the prompts' pass takes."""
    with _measured(watch) as copied:
        decoding = generate._for_decoding(model, work.backend.precision)
    shape = work.architecture
    most = min(answers.generation.max_new_tokens, shape.max_positions - answers.longest_prompt)
    rows, length = answers.num_prompts, answers.longest_prompt
    segments = np.ones((rows, length), np.int32)
    segments[0, : length // 2] = 0  # prompts of unlike length: a mask is needed
    tokens = torch.empty((rows, length), dtype=torch.int64)
    uniform = None if answers.generation.temperature == 0 else torch.empty(rows)
    cache = Cache(segments, shape, length + most)
    size = 2 if work.backend.precision == "bfloat16" else FLOAT
    kept = 2 * shape.num_layers * rows * shape.num_kv_heads * (length + most) * shape.head_dim * size
    with _measured(watch) as measured:
        generate._next_tokens(decoding, tokens, tokens, cache, uniform, answers.generation, work.backend.precision)
    return {"copies": copied[0], "kv_cache": kept, "activations": max(measured[0] - kept, 0)}


@contextmanager
def _measured(watch: _Watch) -> Iterator[list[int]]:
    """The most that was alive inside, beyond what was before: the only item, afterwards."""
    found: list[int] = []
    before, watch.most = watch.alive, watch.alive
    yield found
    found.append(watch.most - before)


def _held(tensors: Mapping[str, Tensor]) -> int:
    return sum(_size(tensor) for tensor in tensors.values())


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
