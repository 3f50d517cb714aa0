"""Which numbers of a model must be divisible for tensor parallelism. Framework-free."""

from __future__ import annotations

from tunix_rt.errors import DeviceError
from tunix_rt.models.families.architecture import Architecture


def check_tensor(architecture: Architecture, tensor: int) -> None:
    """Raises DeviceError, with the numbers, if `hardware.mesh.tensor` devices cannot share a model's matrices out."""
    sizes = {
        "num_attention_heads": architecture.num_heads,
        "num_key_value_heads": architecture.num_kv_heads,
        "vocab_size": architecture.vocab_size,
    }
    if architecture.experts is None:
        sizes["intermediate_size"] = architecture.intermediate_size
    elif architecture.experts.shared_size is not None:
        sizes["shared_expert_intermediate_size"] = architecture.experts.shared_size
    if wrong := [f"{name} {size}" for name, size in sizes.items() if size % tensor]:
        raise DeviceError(
            f"hardware.mesh.tensor={tensor} does not divide {', '.join(wrong)} of this model; "
            "take a divisor, or use these devices for data or shard"
        )
