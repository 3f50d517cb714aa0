"""What the arrays of a quantised matrix are declared to mean, computed one by one; and a model of such values."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tunix_rt.config.choices import Quantization
from tunix_rt.models.adapter import linear
from tunix_rt.models.folder import read_architecture, read_weights
from tunix_rt.models.quantize import NF4, Quantized, quantized


def values_of(matrix: Quantized) -> Any:
    """The values of a matrix."""
    out, width = matrix.shape
    found = np.zeros(out * width, np.float32)
    for place in range(out * width):
        row, column = divmod(place, width if matrix.codes.dtype == np.int8 else 64)
        if matrix.codes.dtype == np.int8:
            level = np.float32(matrix.codes[row, column])
        else:
            byte = int(matrix.codes[row, column // 2])
            level = NF4[byte % 16 if column % 2 else byte // 16]
        found[place] = level * matrix.scales[row]
    return found.reshape(out, width)


def model_of_the_values(base: Path, kind: Quantization, folder: Path) -> Path:
    """The base with the values of its quantised matrices, in full precision."""
    shutil.copytree(base, folder)
    weights = read_weights(base)
    for tensor in linear(read_architecture(base)):
        lies = weights[tensor.name].T if tensor.transposed else weights[tensor.name]
        values = values_of(quantized(lies, kind))
        weights[tensor.name] = np.ascontiguousarray(values.T if tensor.transposed else values)
    for file in folder.glob("model*"):
        file.unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
