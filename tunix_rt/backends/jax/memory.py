"""What a run takes under jax, from shapes alone: its programs are compiled, and the compiler says what they need.

On the CPU freed memory goes back whenever the backend turns to something else (`heap.trim_between_phases`), so the most of a run
is that of its largest phase.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tunix_rt.backends.jax import generate, step
from tunix_rt.backends.jax.adapter import KEYS, LoraLayout, joined, keys
from tunix_rt.backends.jax.decoder import Decoder, Params
from tunix_rt.backends.jax.optimizer import UpdateRule, adam
from tunix_rt.backends.jax.sampling import Sampling
from tunix_rt.backends.memory import FLOAT, Answers, Parts, Phase, Work
from tunix_rt.batches.batch import Batch
from tunix_rt.errors import DeviceError
from tunix_rt.models.families.architecture import kind_of, layer_parts, whole_parts

FRAMEWORK = 60 << 20
"""What jax and XLA hold once a program has run (measured on the CPU)."""
COMPILING = 130 << 20
"""What the compiler of a program takes, once, while it does not run (measured: 140 MiB; 50 from the cache)."""
QUICKLY = {"xla_backend_optimization_level": "0"}
"""Where buffers lie does not depend on how well the code inside the loops is made."""


class _Model:
    """A model's shapes as jax holds them, and the graphs of its decoder."""

    def __init__(self, work: Work) -> None:
        self.work = work
        shape, dtype = work.architecture, jnp.dtype(work.backend.precision)
        layers = {
            own: _spec((shape.num_layers, sum(piece[0] for piece in pieces), *pieces[0][1:]))
            for own, pieces in layer_parts(shape).items()
        }
        whole: Params = {own: _spec(part) for own, part in whole_parts(shape).items()} | {"layers": layers}
        self.frozen: Params = {}
        self.trained, training, plan = whole, whole, None
        if work.adapter is not None:
            plan = LoraLayout.of(work.adapter, shape)
            self.frozen = whole | {"layers": {own: _frozen(own, part, dtype) for own, part in layers.items()}}
            self.trained = {"layers": _sides(work, plan)}
            whole = training = joined(self.frozen, self.trained)
            if work.adapter.dropout > 0:
                training = joined(whole, {"layers": {KEYS: jnp.zeros(0)}})
        self.plan, self.whole = plan, whole
        self.graph = nnx.graphdef(Decoder(shape, dtype, whole, plan))
        checkpointing = work.backend.gradient_checkpointing
        self.training_graph = nnx.graphdef(Decoder(shape, dtype, training, plan, checkpointing))

    def inputs(self, batch: Batch) -> step.Inputs:
        """As a training step takes them."""
        shape, adapter = self.work.architecture, self.work.adapter
        inputs = step.select(batch, shape.vocab_size, shape.hidden_size)
        if adapter is None or self.plan is None:
            return inputs
        return inputs._replace(dropout=keys(adapter, self.plan, 0, 0, len(batch.tokens)))


def device_memory(index: int) -> int:
    """Bytes of a device that jax may use. Raises DeviceError where jax does not know."""
    stats = jax.devices()[index].memory_stats()
    if not stats or "bytes_limit" not in stats:
        raise DeviceError("jax does not say how much memory this device has; name it with --memory SIZE")
    return int(stats["bytes_limit"])


def phases(work: Work) -> list[Phase]:
    """Every phase of a run, in order."""
    return list(_phases(work, _Model(work)))


def _phases(work: Work, model: _Model) -> Iterator[Phase]:
    weights = _size(model.whole)
    file = work.architecture.num_parameters * FLOAT
    # Arrays of the file, the same stacked, and the same on the device; the file is closed when they are stacked.
    held: Parts = {"weights": weights, "framework": FRAMEWORK}
    yield Phase("load", held | {"copies": 2 * file})
    moments = jax.eval_shape(adam(UpdateRule.of(work.optimizer)).init, model.trained)
    held |= {"optimizer": _size(moments)}
    gradients = _size(model.trained)
    scratches = [_training_scratch(model, inputs, moments) for inputs in _different(model, work.batches)]
    yield Phase("train", held | {"gradients": gradients} | _running(_side_by_side(scratches), gradients))
    if work.evaluation is not None:
        inputs = step.select(work.evaluation, work.architecture.vocab_size, work.architecture.hidden_size)
        scratch = _scratch(step.score, model.graph, model.whole, inputs)
        yield Phase("evaluate", held | _running(scratch))
    if work.sampled is not None:
        yield Phase("sample", held | _answering(model, work.sampled))
    yield Phase("save", held | {"copies": _size(model.trained) + _size(moments)})
    if work.predicted is not None:
        alone: Parts = {"weights": weights}
        yield Phase("predict", alone | _answering(model, work.predicted))


def _running(scratch: int, gradients: int = 0) -> Parts:
    """A program's scratch, in which the gradients lie; what the compiler took lay in the same place, before."""
    framework = FRAMEWORK + max(COMPILING - scratch, 0)
    return {"activations": max(scratch - gradients, 0), "framework": framework}


def _side_by_side(scratches: list[int]) -> int:
    """Of programs that take turns, in the order in which they were compiled.

    The place of the last is whole: programs that need less come to run there. What was compiled has settled in the
    places before it; a larger one takes a new place (SmolLM2-135M, the larger first: 4.4 GB; the smaller first: 3.3).
    """
    largest, last = max(scratches), scratches[-1]
    return largest if last == largest else largest + last


def _different(model: _Model, batches: tuple[Batch, ...]) -> list[step.Inputs]:
    """One of each program that the batches call for, in the order in which they do."""
    found = [model.inputs(batch) for batch in batches]
    return list({str(jax.tree.map(lambda array: array.shape, inputs)): inputs for inputs in found}.values())


def _training_scratch(model: _Model, inputs: step.Inputs, moments: Any) -> int:
    rule = UpdateRule.of(model.work.optimizer)
    one = np.float32(1)
    return _scratch(step.train_step, model.training_graph, rule, model.trained, moments, model.frozen, inputs, one, one)


def _answering(model: _Model, answers: Answers) -> Parts:
    """Copies of the layers, the cache at its longest, and what the larger of reading and writing takes."""
    shape = model.work.architecture
    rows = min(generate._power_of_two(answers.num_prompts), answers.generation.batch_size)
    longest = min(answers.generation.max_new_tokens, shape.max_positions - answers.longest_prompt)
    slots = generate.bucket(answers.longest_prompt)
    sampling = Sampling(answers.generation.temperature, answers.generation.top_k, answers.generation.top_p)
    integers, floats = _spec((rows,), np.int32), _spec((rows,))
    stops, tokens = _spec((1,), np.int32), _spec((rows, slots), np.int32)
    first = generate._capacity(slots, 1, longest)
    reading = (generate.prefill, model.graph, sampling, first, model.whole, tokens, integers, integers, stops, floats)
    read = _scratch(*reading)
    carry, _ = jax.eval_shape(lambda *given: reading[0](*reading[1:4], *given), *reading[4:])
    full = generate._capacity(slots, longest, longest)
    carry = jax.eval_shape(lambda carry, kept: generate.refit(carry, kept, full), carry, integers)
    layers = jax.eval_shape(lambda params: generate._separate(model.graph, params), model.whole)
    uniform = _spec((generate.PORTION if rows > 1 else generate.SINGLE_PORTION, rows))
    written = _scratch(generate.decode, model.graph, sampling, model.whole, layers, carry, stops, uniform)
    copied: Parts = {"copies": _size(layers), "kv_cache": _size(carry.cache)}
    return copied | _running(max(read, written))


def _scratch(function: Any, *arguments: Any) -> int:
    """Bytes that a program needs beside its arguments and what it returns in their place, as the compiler says."""
    found = function.lower(*arguments).compile(compiler_options=QUICKLY).memory_analysis()
    return int(found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes)


def _sides(work: Work, plan: LoraLayout) -> Params:
    """A and B of each piece, stacked over layers."""
    assert work.adapter is not None
    sides: Params = {}
    for piece in plan.pieces:
        columns = layer_parts(work.architecture)[piece.canonical_name][0][1]
        sides[piece.key("A")] = _spec((work.architecture.num_layers, work.adapter.rank, columns))
        sides[piece.key("B")] = _spec((work.architecture.num_layers, piece.rows, work.adapter.rank))
    return sides


def _frozen(own: str, part: jax.ShapeDtypeStruct, dtype: Any) -> jax.ShapeDtypeStruct:
    return _spec(part.shape, dtype) if kind_of(own) == "matrices" else part


def _spec(shape: tuple[int, ...], dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))
