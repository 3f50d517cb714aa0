"""The likeliest tokens at every position of a batch, for who asks what else a text might have said.

Legend: A micro-batches, B rows, T positions, N = B * T, V vocabulary, k likeliest tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunix_rt.backends.limits import LOGITS_AT_ONCE
from tunix_rt.backends.torch.attention import Packed
from tunix_rt.backends.torch.copies import on_device
from tunix_rt.backends.torch.decoder import Decoder, hidden_states
from tunix_rt.backends.torch.mesh import ALONE, Axis
from tunix_rt.backends.torch.products import DTYPES, matmul, rounded
from tunix_rt.backends.torch.sharding import HEAD
from tunix_rt.backends.torch.step import capped
from tunix_rt.batches.batch import Batch


@torch.inference_mode()
def likeliest(model: Decoder, batch: Batch, top: int) -> Tensor:
    """float64 [A, B, T, 2, k]: ids and log-probabilities, the likeliest first, so that one array is gathered.

    `batch`: arrays [A, B, T].
    """
    return torch.stack([_of_micro_batch(model, batch, index, top) for index in range(len(batch.tokens))])


def _of_micro_batch(model: Decoder, batch: Batch, index: int, top: int) -> Tensor:
    tokens, positions = (on_device(part[index], model.device, torch.int64) for part in (batch.tokens, batch.positions))
    hidden = hidden_states(model, tokens, positions, Packed(batch.segments[index], model.architecture, model.device))
    vocabulary = ALONE.tensor if model.tensor is None else model.tensor.axis
    with model.gathered(HEAD) as whole:
        head = rounded(whole.head, DTYPES[model.precision])
        rows = rounded(model.enter(hidden.flatten(0, 1)).float(), DTYPES[model.precision])
        size = max(1, LOGITS_AT_ONCE // len(head))
        cap = model.architecture.logit_cap
        found = [_likeliest(capped(matmul(part, head), cap), top, vocabulary) for part in torch.split(rows, size)]
    return torch.cat(found).reshape(*tokens.shape, 2, -1)


def _likeliest(logits: Tensor, top: int, vocabulary: Axis) -> Tensor:
    """`logits` [N, V] of this process's part of the vocabulary → float64 [N, 2, k]."""
    values, ids = logits.topk(min(top, logits.shape[-1]), dim=-1)
    log_sums = vocabulary.gather(logits.logsumexp(-1, keepdim=True)).logsumexp(0)
    own = torch.stack([(ids + vocabulary.rank * logits.shape[-1]).double(), (values - log_sums).double()], 1)
    joined = vocabulary.gather(own).permute(1, 2, 0, 3).flatten(2)
    order = joined[:, 1].topk(min(top, joined.shape[-1]), dim=-1).indices
    return joined.gather(-1, order[:, None].expand(-1, 2, -1))
