"""The section `optimizer`: one definition of each kind, which all backends follow (`backends/optimizers`)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import Discriminator

from tunix_rt.config.section import Count, section

Positive = Annotated[float, Gt(0)]
Beta = Annotated[float, Ge(0), Lt(1)]
Decay = Annotated[float, Ge(0)]
NEEDS_WHOLE_TENSORS = (
    "it needs tensors whole, which torch shares out: use these devices for data or shard, or backend=jax, or "
    "optimizer=adamw or lion"
)
"""Why an optimizer that is not elementwise is refused with torch's tensor parallelism."""
Undecayed = tuple[Literal["norms", "biases", "embeddings"], ...]


@section
class AdamWConfig:
    """AdamW in the decoupled form (Loshchilov & Hutter 2017, arXiv 1711.05101), float32 state."""

    elementwise: ClassVar[bool] = True
    """Whether a weight's update depends on that weight's own numbers alone, so that parts of a tensor are updated
    apart."""

    kind: Literal["adamw"]
    learning_rate: Positive
    """Peak learning rate."""
    beta1: Beta
    """Decay of the first moment."""
    beta2: Beta
    """Decay of the second moment."""
    eps: Positive
    """Added to the square root of the bias-corrected second moment."""
    weight_decay: Decay
    """Share of a weight taken away at each step, times the learning rate."""
    no_decay: Undecayed
    """Kinds of tensors without weight decay; a tied output head is an embedding."""


@section
class LionConfig:
    """Lion (Chen et al. 2023, arXiv 2302.06675): the sign of a moving average; half of AdamW's state."""

    elementwise: ClassVar[bool] = True

    kind: Literal["lion"]
    learning_rate: Positive
    """Peak learning rate: a third to a tenth of AdamW's, as every weight moves by all of it."""
    beta1: Beta
    """Share of the moving average in what the sign is taken of."""
    beta2: Beta
    """Decay of the moving average."""
    weight_decay: Decay
    no_decay: Undecayed


@section
class MuonConfig:
    """Muon (Jordan 2024) for the matrices of layers: their momentum, orthogonalised, scaled as AdamW's updates
    (arXiv 2502.16982), so that its learning rates fit; AdamW for embeddings, heads, norms and biases.
    """

    elementwise: ClassVar[bool] = False

    kind: Literal["muon"]
    learning_rate: Positive
    """Peak learning rate, of both."""
    momentum: Beta
    """Decay of the momentum of matrices, in Nesterov's form."""
    newton_schulz_steps: Count
    """Iterations of the orthogonalisation."""
    beta1: Beta
    """AdamW's for all other tensors, as are `beta2` and `eps`."""
    beta2: Beta
    eps: Positive
    weight_decay: Decay
    no_decay: Undecayed


@section
class AdafactorConfig:
    """Adafactor (Shazeer & Stern 2018, arXiv 1804.04235): of a matrix's second moment the sums of rows and columns; no
    first moment, no relative step.
    """

    elementwise: ClassVar[bool] = False

    kind: Literal["adafactor"]
    learning_rate: Positive
    """Peak learning rate."""
    decay_rate: Annotated[float, Gt(0), Lt(1)]
    """The second moment's decay at step t is 1 - t^-decay_rate."""
    clip_threshold: Positive
    """Root mean square of a tensor's update above which the update is scaled down."""
    scale_parameter: bool
    """Whether updates are multiplied by the root mean square of the tensor, at least 1e-3."""
    eps: Positive
    """Added to squared gradients."""
    weight_decay: Decay
    no_decay: Undecayed


@section
class AdamW8bitConfig:
    """AdamW with moments of 8 bits in blocks (Dettmers et al. 2021, arXiv 2110.02861). Small tensors and embeddings
    keep theirs in float32.
    """

    elementwise: ClassVar[bool] = False

    kind: Literal["adamw_8bit"]
    learning_rate: Positive
    """Peak learning rate."""
    beta1: Beta
    beta2: Beta
    eps: Positive
    weight_decay: Decay
    no_decay: Undecayed
    block_size: Literal[256, 512, 1024, 2048]
    """Numbers of a moment that share a scale."""


OptimizerConfig = Annotated[
    AdamWConfig | LionConfig | MuonConfig | AdafactorConfig | AdamW8bitConfig,
    Discriminator("kind"),
]
