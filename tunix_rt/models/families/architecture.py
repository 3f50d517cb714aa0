"""The numbers that define a decoder, whatever its family calls them. Plain data: no file, no framework."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """A pre-norm decoder: RMSNorm, rotary positions, grouped-query attention and SwiGLU, without biases."""

    family: str
    """`model_type` of config.json: the page of `families/` that knows its names."""
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    """Width of the gated feed-forward layer."""
    num_layers: int
    num_heads: int
    """Query heads; each group of num_heads / num_kv_heads of them shares one key and value head."""
    num_kv_heads: int
    head_dim: int
    """Width of one head, even; num_heads * head_dim need not be hidden_size."""
    max_positions: int
    """Longest sequence, in tokens."""
    rope_theta: float
    """Base of the rotary frequencies (arXiv 2104.09864), applied to halves as in `transformers`."""
    norm_eps: float
    """Added to the mean square inside RMSNorm."""
    tie_embeddings: bool
    """The output head is the embedding matrix."""

    @property
    def num_parameters(self) -> int:
        """Number of weights; a tied head counts once."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_heads + self.num_kv_heads)
        feed_forward = 3 * self.hidden_size * self.intermediate_size
        norms = 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)
        return embeddings + self.num_layers * (attention + feed_forward + norms) + self.hidden_size
