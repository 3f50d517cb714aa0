"""Builds one of Tunix's own models from an architecture; what they cannot compute is refused by name.

Llama and Mistral run as Tunix's `Qwen2` with biases that are 0 and never trained: Tunix 0.1.7's `Llama3` uses a rotary
base of 1,000,000 whatever its config says and has no dtype setting, and its `Qwen3` has the same fixed base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tunix.models.gemma3 import model as gemma3
from tunix.models.qwen2 import model as qwen2
from tunix.models.qwen3 import model as qwen3

from tunix_rt.backends.tunix.weights import GEMMA3, GEMMA3_ALIKE, QWEN, Path, Place, WeightMapping
from tunix_rt.config.execution import BackendConfig
from tunix_rt.errors import ModelError
from tunix_rt.models.families.architecture import Architecture, LayerKind
from tunix_rt.models.families.rope import Rope
from tunix_rt.models.folder import Weights


class Frozen(nnx.Variable[jax.Array]):
    """A variable that is used but never trained: Tunix's trainer trains `nnx.Param`."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of Tunix's models."""

    name: str
    make: Callable[[Architecture, BackendConfig], nnx.Module]
    computes: Callable[[Architecture], Architecture]
    """Returns the nearest architecture that the model computes."""
    table: Callable[[Architecture], Mapping[str, Place]]
    precisions: tuple[str, ...] = ("float32", "bfloat16")


def _plain(a: Architecture, layers: tuple[LayerKind, ...], **parts: Any) -> Architecture:
    """The sizes of `a`, everything else as in Llama (the defaults), then `parts`."""
    sizes = {field.name: getattr(a, field.name) for field in fields(a) if field.default is MISSING}
    return Architecture(**sizes | {"layers": layers, "attention_scale": a.head_dim**-0.5} | parts)


def _theta(kind: LayerKind) -> float:
    return 10000.0 if kind.rope is None else kind.rope.theta


def _alike(a: Architecture, theta: float) -> tuple[LayerKind, ...]:
    return (LayerKind(Rope(theta)),) * a.num_layers


def _qwen2(a: Architecture) -> Architecture:
    bias = "inputs" if a.attention_bias == "inputs" else "none"
    return _plain(a, _alike(a, _theta(a.layers[0])), attention_bias=bias)


def _qwen3(a: Architecture) -> Architecture:
    return _plain(a, _alike(a, 1_000_000.0), query_key_norm="head")


EVERY = 6
"""Every so many layers of a Gemma 3, one has global attention."""


def _near_and_far(a: Architecture) -> tuple[LayerKind, LayerKind]:
    return a.layers[0], a.layers[min(EVERY, a.num_layers) - 1]


def _gemma3(a: Architecture) -> Architecture:
    """Five layers with a window, then one without, whose positions may be divided by a factor."""
    near, far = _near_and_far(a)
    scaled = far.rope is not None and far.rope.scaling == "linear"
    whole = LayerKind(Rope(_theta(far), "linear", far.rope.factor) if scaled and far.rope else Rope(_theta(far)))
    local = LayerKind(Rope(_theta(near)), near.window or 512)
    return _plain(
        a,
        tuple(local if (layer + 1) % EVERY else whole for layer in range(a.num_layers)),
        norm_eps=1e-6,
        norm_offset=1.0,
        norm_places="both",
        query_key_norm="head",
        activation="gelu_tanh",
        embedding_scale=a.hidden_size**0.5,
        tie_embeddings=True,
    )


def _shared(module: Any, a: Architecture, backend: BackendConfig) -> dict[str, Any]:
    """Fields common to all of Tunix's configs."""
    remat = module.RematConfig.DECODER if backend.gradient_checkpointing else module.RematConfig.NONE
    return {
        "num_layers": a.num_layers,
        "embed_dim": a.hidden_size,
        "hidden_dim": a.intermediate_size,
        "num_heads": a.num_heads,
        "head_dim": a.head_dim,
        "num_kv_heads": a.num_kv_heads,
        "param_dtype": jnp.float32,
        "remat_config": remat,
    }


def _make_qwen(module: Any, model: Callable[..., nnx.Module], a: Architecture, backend: BackendConfig) -> nnx.Module:
    config = module.ModelConfig(
        vocab_size=a.vocab_size,
        rope_theta=_theta(a.layers[0]),
        norm_eps=a.norm_eps,
        use_tied_embedding=a.tie_embeddings,
        dtype=jnp.dtype(backend.precision),
        **_shared(module, a, backend),
    )
    return model(config, rngs=nnx.Rngs(params=0))


def _make_gemma3(a: Architecture, backend: BackendConfig) -> nnx.Module:
    near, far = _near_and_far(a)
    config = gemma3.ModelConfig(
        num_embed=a.vocab_size,
        sliding_window_size=near.window,
        local_base_frequency=_theta(near),
        global_base_frequency=_theta(far),
        global_scale_factor=far.rope.factor if far.rope else 1.0,
        **_shared(gemma3, a, backend),
    )
    made: nnx.Module = gemma3.Gemma3(config, rngs=nnx.Rngs(params=0))
    return made


QWEN2 = Kind("Qwen2", partial(_make_qwen, qwen2, qwen2.Qwen2), _qwen2, lambda _: QWEN)
KINDS: dict[str, Kind] = {
    "llama": QWEN2,
    "mistral": QWEN2,
    "qwen2": QWEN2,
    "qwen3": Kind("Qwen3", partial(_make_qwen, qwen3, qwen3.Qwen3), _qwen3, lambda _: QWEN),
    "gemma3_text": Kind(
        "Gemma3",
        _make_gemma3,
        _gemma3,
        lambda a: GEMMA3_ALIKE if a.num_heads == a.num_kv_heads else GEMMA3,
        precisions=("float32",),
    ),
}
"""Models by `model_type`; `config/choices.py` lists the same ones for the config check."""


def kind_of_model(a: Architecture, precision: str, where: str) -> Kind:
    """Tunix's model for an architecture. Raises ModelError for an unsupported family, or with what differs."""
    instead = "use backend=jax or backend=torch"
    if a.family not in KINDS:
        raise ModelError(
            f"{where}: model_type {a.family!r}: backend=tunix computes {', '.join(sorted(KINDS))}; {instead}"
        )
    kind = KINDS[a.family]
    if precision not in kind.precisions:
        raise ModelError(
            f"{where}: Tunix's {kind.name} computes in the precision of its weights: "
            f"backend.precision={kind.precisions[0]}, or {instead}"
        )
    lines = list(_differences("", a, kind.computes(a)))
    if lines:
        raise ModelError("\n".join([f"{where}: Tunix's {kind.name} cannot compute this model; {instead}:", *lines]))
    return kind


def _differences(path: str, found: Any, computed: Any) -> Iterator[str]:
    """Yields a line for each field that differs; for a tuple, only its first differing entry."""
    if found == computed:
        return
    if is_dataclass(found) and is_dataclass(computed):
        for field in fields(found):
            inner = f"{path}.{field.name}" if path else field.name
            yield from _differences(inner, getattr(found, field.name), getattr(computed, field.name))
    elif isinstance(found, tuple) and isinstance(computed, tuple):
        place = next(index for index, pair in enumerate(zip(found, computed, strict=True)) if pair[0] != pair[1])
        yield from _differences(f"{path}[{place}]", found[place], computed[place])
    else:
        yield f"  {path}: the model's {found!r}, Tunix's {computed!r}"


def build(
    a: Architecture, weights: Weights, backend: BackendConfig, where: str, device: jax.Device
) -> tuple[Any, WeightMapping]:
    """Tunix's model with these weights on the device, and their mapping. Raises ModelError."""
    kind = kind_of_model(a, backend.decided, where)
    model: Any = nnx.eval_shape(lambda: kind.make(a, backend))
    if kind is QWEN2 and a.attention_bias == "none":
        for layer in model.layers:
            for name in ("q_bias", "k_bias", "v_bias"):
                zeros = jnp.zeros(getattr(layer.attn, name).shape, jnp.float32, device=device)
                setattr(layer.attn, name, Frozen(zeros))
    shapes = {path: variable.shape for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    layout = WeightMapping.of(a, kind.table(a), shapes)
    assign(nnx.state(model, nnx.Param), layout.from_files(weights), device)
    return model, layout


def assign(state: nnx.State[Any, Any], arrays: Mapping[Path, Any], device: jax.Device) -> None:
    """Set the variables of a state (of a model or an optimizer) to these values, in place."""
    for path, variable in nnx.to_flat_state(state):
        variable.set_value(jax.device_put(arrays[path], device))


def arrays_of(state: nnx.State[Any, Any]) -> dict[Path, Any]:
    """The inverse, as copies on the host."""
    return {path: np.array(variable.get_value()) for path, variable in nnx.to_flat_state(state)}
