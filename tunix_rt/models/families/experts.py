"""The fields of config.json that families with experts share."""

from __future__ import annotations

from tunix_rt.models.families.architecture import Experts
from tunix_rt.models.families.fields import Fields

COUNTS = ("num_experts", "num_local_experts")
"""Two names of the number of experts: `transformers` 5 renames one to the other in some families."""


def experts(fields: Fields, intermediate_size: int, normalised: bool, shared_size: int | None = None) -> Experts:
    """The experts of every layer. Raises ModelError: a dense layer among them, an auxiliary loss, or wrong numbers."""
    fields.plain("decoder_sparse_step", 1)
    fields.plain("mlp_only_layers", [], None)
    fields.plain("router_jitter_noise", 0.0)
    if fields.flag("output_router_logits"):
        problem = "true adds an auxiliary loss of the router to training, which is not computed here; set it to false"
        raise fields.refuse("output_router_logits", problem)
    counts = {name: fields.count(name) for name in COUNTS if name in fields.config}
    if len(set(counts.values())) != 1:
        raise fields.refuse(" and ".join(counts or COUNTS[:1]), "expected one number of experts")
    count, per_token = next(iter(counts.values())), fields.count("num_experts_per_tok")
    if per_token > count:
        raise fields.refuse("num_experts_per_tok", f"{per_token}, but there are {count} experts")
    return Experts(count, per_token, intermediate_size, normalised, shared_size)
