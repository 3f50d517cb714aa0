"""Generation: prompts of similar length are prefilled together, then decoded one token at a time with a cache.

A row's numbers depend only on its prompt and seed. Equal prompts of a batch are prefilled once; finished rows leave.
Legend: R rows in the batch, P different prompts among them, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends.interface import FinishReason, Piece
from tunix_rt.backends.prompts import distinct, first_equals
from tunix_rt.backends.sampling import uniforms
from tunix_rt.backends.torch.cache import Cache
from tunix_rt.backends.torch.decoder import Decoder, hidden_states
from tunix_rt.backends.torch.mesh import ALONE, Axis
from tunix_rt.backends.torch.products import DTYPES, matmul, rounded
from tunix_rt.backends.torch.step import capped
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.families.names import Tensor as Named
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.folder import Float32

PIECE_LENGTH = 16
"""Tokens per piece of an unfinished row; a single prompt, which somebody may be watching, yields every token."""
CROWDED = 0.75
"""Share of unfinished rows below which finished ones are removed: removing copies the cache."""


def generate(
    model: Decoder,
    prompts: Sequence[Int32],
    generation: GenerationConfig,
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    share: Axis = ALONE.rows,
) -> Iterator[Piece]:
    """See `Backend.generate`; of the prompts, in the order in which they are answered, every process of
    the axis `share` takes its own. A prompt that fills the model's positions yields an empty piece, "length".
    """
    model = model.in_whole()
    model, head = _for_decoding(model), rounded(model.head.detach(), DTYPES[model.precision])
    room = [min(generation.max_new_tokens, model.architecture.max_positions - len(p)) for p in prompts]
    firsts = first_equals(prompts)
    order = sorted(range(len(prompts)), key=lambda i: (room[i] > 0, len(prompts[i]), firsts[i]))
    order = order[share.rank :: share.size]
    for index in (i for i in order if room[i] <= 0):
        yield Piece(index, np.empty(0, np.int32), np.empty(0, np.float32), "length")
    order = [index for index in order if room[index] > 0]
    for start in range(0, len(order), generation.batch_size):
        group = order[start : start + generation.batch_size]
        draws = None
        if generation.temperature > 0:
            draws = uniforms([seeds[i] for i in group], max(room[i] for i in group))
        rows = [_Row(i, room[i]) for i in group]
        yield from _decode(model, head, rows, [prompts[i] for i in group], draws, generation, set(stop_ids))


@dataclass(slots=True)
class _Row:
    """One prompt's unfinished completion: the tokens not yet yielded."""

    index: int
    room: int
    """New tokens that it may still get."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_id: int | None = None
    stop_logprob: float | None = None

    def add(self, token: int, logprob: float, stop_ids: set[int]) -> None:
        self.room -= 1
        if token in stop_ids:
            self.finish_reason, self.stop_id, self.stop_logprob = "stop", token, logprob
            return
        self.ids.append(token)
        self.logprobs.append(logprob)
        if self.room == 0:
            self.finish_reason = "length"

    def piece(self) -> Piece:
        ids: Int32 = np.array(self.ids, np.int32)
        logprobs: Float32 = np.array(self.logprobs, np.float32)
        self.ids, self.logprobs = [], []
        return Piece(self.index, ids, logprobs, self.finish_reason, self.stop_id, self.stop_logprob)


def _decode(
    model: Decoder,
    head: Tensor,
    rows: list[_Row],
    prompts: list[Int32],
    draws: Float32 | None,
    generation: GenerationConfig,
    stop_ids: set[int],
) -> Iterator[Piece]:
    """Answer the prompts of one batch. `rows` follows the batch: rows that left it are removed."""
    uniform = None if draws is None else torch.from_numpy(draws).to(model.device)
    different, places = distinct(prompts)
    tokens, segments, positions = _left_padded(different)
    length, most = segments.shape[1], max(row.room for row in rows)
    piece_length = PIECE_LENGTH if len(rows) > 1 else 1
    inputs, position, owners = (torch.from_numpy(x).to(model.device) for x in (tokens, positions, np.array(places)))
    cache = Cache(segments, model.architecture, length + most, owners)
    logits, position = _next_logits(model, head, inputs, position, cache)[owners], position[owners]
    for step in range(most):
        drawn = None if uniform is None else uniform[:, step]
        chosen, values = _chosen(logits, drawn, generation)
        for row, token, value in zip(rows, chosen.tolist(), values.tolist(), strict=True):
            if row.finish_reason is None:
                row.add(token, value, stop_ids)
                if row.finish_reason is not None or len(row.ids) == piece_length:
                    yield row.piece()
        alive = [i for i, row in enumerate(rows) if row.finish_reason is None]
        if not alive:
            return
        inputs, position = chosen[:, None], position[:, -1:] + 1
        if len(alive) <= CROWDED * len(rows):
            kept = torch.tensor(alive, device=model.device)
            cache.keep(kept)
            rows, inputs, position = [rows[i] for i in alive], inputs[kept], position[kept]
            uniform = None if uniform is None else uniform[kept]
        logits = _next_logits(model, head, inputs, position, cache)


@torch.inference_mode()
def _next_logits(model: Decoder, head: Tensor, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
    """Read `tokens` int64 [R, T]; returns the logits of what follows, float32 [R, V]. `head`: the matrix, rounded."""
    hidden = hidden_states(model, tokens, positions, cache)[:, -1]
    logits = matmul(rounded(hidden, DTYPES[model.precision]), head.T)
    return capped(logits, model.architecture.logit_cap)


@torch.inference_mode()
def _chosen(logits: Tensor, uniform: Tensor | None, generation: GenerationConfig) -> tuple[Tensor, Tensor]:
    """Each row's next token, int64 [R], and its log-probability, float32 [R]."""
    chosen = logits.argmax(-1) if uniform is None else sample(logits, uniform, generation)
    return chosen, logits.gather(-1, chosen[:, None])[:, 0] - logits.logsumexp(-1)


def sample(logits: Tensor, uniform: Tensor, generation: GenerationConfig) -> Tensor:
    """Tokens int64 [R] from `logits` [R, V] and one uniform number [R] each, by inversion in vocabulary order.

    Temperature first, then top-k, then top-p, as in transformers; all ties at a threshold are kept.
    """
    logits = logits / generation.temperature
    if generation.top_k is not None and generation.top_k < logits.shape[-1]:
        smallest = logits.topk(generation.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    probabilities = logits.softmax(-1)
    if generation.top_p is not None and generation.top_p < 1:
        ranked = probabilities.sort(descending=True).values
        needed = (ranked.cumsum(-1) - ranked < generation.top_p).sum(-1, keepdim=True)
        probabilities = probabilities.where(probabilities >= ranked.gather(-1, needed - 1), 0.0)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1]
    # Rounding may lift u * total to the total itself, beyond the last token.
    drawn = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, drawn[:, None], right=True)[:, 0]


def _left_padded(prompts: list[Int32]) -> tuple[Int32, Int32, Int32]:
    """Token ids, segments and positions, [R, T], padding (0, 0, 0) on the left."""
    lengths = np.array([len(prompt) for prompt in prompts])
    offsets = np.arange(lengths.max()) - (lengths.max() - lengths)[:, None]
    tokens = np.zeros(offsets.shape, np.int64)
    tokens[offsets >= 0] = np.concatenate(prompts)
    return tokens, (offsets >= 0).astype(np.int32), np.maximum(offsets, 0)


def _for_decoding(model: Decoder) -> Decoder:
    """The same model with its layers' matrices cast to `precision` once, not at every token.

    They are stored transposed in memory, in the same shape: up to a fifth faster on the CPU for a few rows. An adapter
    is merged into them once, where that changes nothing but rounding: not in bfloat16, whose steps are larger than what
    an adapter adds, and not into quantised ones, which stay as they are.
    """
    dtype = DTYPES[model.precision]
    places = [p for p in tensors_of(model.architecture) if p.is_layer_matrix and p.name in model.weights]
    adapter = model.adapter
    merges = adapter is not None and dtype == torch.float32 and adapter.pairs.keys() <= {p.name for p in places}
    matrix = partial(_merged, model) if merges else partial(_frozen, model)
    matrices = {place.name: _cast(matrix(place), dtype, turned=not place.transposed) for place in places}
    return replace(model, weights=model.weights | matrices, adapter=None if merges else adapter)


def _frozen(model: Decoder, place: Named) -> Tensor:
    return model.weights[place.name].detach()


def _merged(model: Decoder, place: Named) -> Tensor:
    """A matrix with what its adapter adds, if it has one."""
    assert model.adapter is not None
    matrix = _frozen(model, place)
    if place.name not in model.adapter.pairs:
        return matrix
    a, b = (side.detach() for side in model.adapter.pairs[place.name])
    added = b @ a * model.adapter.scalings[place.name]
    return matrix + (added.t() if place.transposed else added)


def _cast(matrix: Tensor, dtype: torch.dtype, turned: bool) -> Tensor:
    """A copy in `dtype`; if `turned`, of the same shape but transposed in memory."""
    matrix = matrix.to(dtype)
    return matrix.t().contiguous().t() if turned else matrix.contiguous()
