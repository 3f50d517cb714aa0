"""A LoRA adapter's folder → a GGUF file of the kind `adapter`, which llama.cpp applies to a model (`--lora`).

llama.cpp adds alpha / rank * B A with one alpha for all matrices; what a matrix has otherwise goes into its B. The rows
of B are those of the matrix, and lie as they do (`gguf_layout`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tunix_rt.config.choices import GgufDtype
from tunix_rt.models.adapter import tensor_name
from tunix_rt.models.adapter_folder import read_adapter
from tunix_rt.models.folder import read_architecture
from tunix_rt.models.gguf_families import family_of
from tunix_rt.models.gguf_layout import layout, permute
from tunix_rt.models.gguf_write import Entry, general_keys, require_package, write_file


def write_gguf_adapter(folder: Path, base: Path, target: Path, dtype: GgufDtype, name: str) -> None:
    """Write the adapter of a folder, for the model of the folder `base`, into the file `target`, whole or not at all.

    Raises ModelError: as `read_adapter` and `family_of`; MissingExtra.
    """
    require_package()
    architecture = read_architecture(base)
    family, (adapter, tensors) = family_of(architecture), read_adapter(folder, architecture)
    stored = {tensor.name: place for place in layout(architecture) for tensor in place.tensors}
    alpha, entries = float(adapter.alpha), list[Entry]()
    for module in adapter.modules:
        low, high = (tensors[tensor_name(module, side)] for side in ("A", "B"))
        high = high * np.float32(adapter.scaling_of(module) * len(low) / alpha)
        place = stored[module.name]
        high = permute(high, place.heads) if place.heads else high
        for end, values in (("lora_a", low), ("lora_b", high)):
            entries.append(Entry(f"{place.name}.{end}", values.shape, dtype, values))
    keys = general_keys("adapter", name, dtype) | {"adapter.type": "lora", "adapter.lora.alpha": alpha}
    write_file(target, family.name, keys, entries)
