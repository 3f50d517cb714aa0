"""Arrays of the host → tensors on the device: the only place where a batch is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def on_device(array: np.ndarray[Any, Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """`array` on `device`, as `dtype` (None: its own). On the CPU it may share the array's memory.

    On CUDA the copy is from pinned memory, on the stream of the computation, and nothing waits for it: torch gives the
    pinned block to nobody else before it has been read (`CachingHostAllocator.h`).
    """
    here = torch.from_numpy(array)
    if device.type != "cuda":
        return here.to(device, dtype)
    return here.pin_memory().to(device, non_blocking=True).to(dtype or here.dtype)
