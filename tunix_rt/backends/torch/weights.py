"""Converts between this backend's tensors and files: weights under Hugging Face names, and optimizer state.

`model.safetensors` holds the weights; `optimizer.safetensors` holds `m.<name>`, `v.<name>` (float32) and
`count` (int64, updates applied), which the other backends read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends.torch.decoder import Decoder
from tunix_rt.backends.torch.optimizer import AdamW
from tunix_rt.config.training import OptimizerConfig
from tunix_rt.models import folder as model_folder
from tunix_rt.models.families.registry import tensors_of

Arrays = dict[str, np.ndarray[Any, Any]]


def read_decoder(folder: Path, device: torch.device, trainable: bool, matrices: torch.dtype) -> Decoder:
    """The model of a Hugging Face folder on `device`, float32 except the layers' matrices, in dtype `matrices`.

    Raises ModelError if it does not fit.
    """
    architecture = model_folder.read_architecture(folder)
    arrays = model_folder.read_weights(folder)
    weights = {}
    for tensor in tensors_of(architecture):  # one by one: two complete copies are never in memory
        dtype = matrices if tensor.is_layer_matrix else torch.float32
        array = arrays.pop(tensor.name)
        weights[tensor.name] = torch.tensor(array, dtype=dtype, device=device, requires_grad=trainable)
    return Decoder(architecture, weights)


def read_optimizer(
    folder: Path, config: OptimizerConfig, kinds: Mapping[str, str], weights: dict[str, Tensor]
) -> AdamW:
    """The optimizer state that any backend saved. Raises CheckpointError if it does not fit."""
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    stored = model_folder.read_moments(folder / model_folder.OPTIMIZER, shapes)
    first, second = (
        {name: torch.tensor(stored[f"{moment}.{name}"], device=w.device) for name, w in weights.items()}
        for moment in "mv"
    )
    device = next(iter(weights.values())).device
    return AdamW(config, kinds, first, second, torch.tensor(float(stored["count"]), device=device))


def snapshot(tensors: dict[str, Tensor], prefix: str = "") -> Arrays:
    """Copies on the host, so that later steps cannot change them."""
    return {prefix + name: np.array(value.detach().cpu().numpy()) for name, value in tensors.items()}


def optimizer_snapshot(optimizer: AdamW) -> Arrays:
    """The optimizer state as arrays to store."""
    count = {"count": np.array(int(optimizer.count), np.int64)}
    return snapshot(optimizer.first, "m.") | snapshot(optimizer.second, "v.") | count
