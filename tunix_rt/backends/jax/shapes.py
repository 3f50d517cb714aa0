"""Names and shapes of the decoder's tensors, from its architecture alone."""

from __future__ import annotations

from tunix_rt.backends.jax.quantized import shapes_of, specs
from tunix_rt.config.choices import Quantization
from tunix_rt.models.families.architecture import Architecture, Shape, layer_parts, whole_parts


def tensor_shapes(architecture: Architecture, quantize: Quantization | None) -> dict[str, Shape]:
    """Canonical name → shape; quantised matrices as codes and scales; those of a layer without the first axis L."""
    full = {
        own: (sum(piece[0] for piece in pieces), *pieces[0][1:])
        for own, pieces in layer_parts(architecture).items()
        if quantize is None or own not in shapes_of(architecture)
    }
    codes = {own: tuple(one.shape[1:]) for own, one in specs(architecture, quantize).items()}
    return full | codes | whole_parts(architecture)
