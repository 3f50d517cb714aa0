"""The sections `generation` and `evaluation`: how the model answers and how answers are judged."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from tunix_rt.config.section import Count, Execution, Natural, Tokens, Unit, section


@section
class GenerationConfig:
    """Decoding. A row's text depends only on its prompt, the seed, its id and its sample number."""

    seed: Natural = 0
    """Seed for sampling. null: the experiment's `seed`."""
    split: Literal["validation", "test"]
    """Which prompts are answered."""
    max_new_tokens: Tokens
    """Most tokens of an answer; a longer one is cut off and counts as not stopped."""
    temperature: Annotated[float, Ge(0)]
    """0: greedy."""
    top_k: Tokens | None
    """Sample among the `top_k` likeliest tokens only."""
    top_p: Annotated[float, Gt(0), Le(1)] | None
    """Sample among the smallest set of likeliest tokens whose probabilities sum to at least `top_p`."""
    num_return_sequences: Annotated[Count, Unit("answers")]
    """Samples per prompt."""
    batch_size: Execution[Annotated[Count, Unit("sequences")]]
    """Sequences decoded together."""
    baseline: bool
    """Also predict with the model at the start of training, including the adapter at `model.adapter.path`."""
    max_error_rate: Execution[Annotated[float, Ge(0), Le(1)]]
    """Share of failed predictions above which the run fails; if all failed, it always fails."""

    def __post_init__(self) -> None:
        if self.temperature == 0 and (self.top_k is not None or self.top_p is not None):
            raise ValueError("temperature 0 is greedy: top_k and top_p must be null")
        if self.temperature == 0 and self.num_return_sequences > 1:
            raise ValueError("temperature 0 gives the same text every time: num_return_sequences must be 1")


@section
class EvaluationConfig:
    """Rules for answers and steps. Changing them never needs new generation."""

    answer: Literal["exact", "numeric"]
    """`exact`: the same text after Unicode and white-space normalisation; `numeric`: the same number."""
    extract: Literal["format", "last_number"]
    """`format`: the answer where the format puts it; `last_number`: the last number of the completion."""
    relative_tolerance: Annotated[float, Ge(0)]
    """Tolerance for `numeric`; 0: equal as exact fractions."""
    steps: Literal["none", "arithmetic"]
    """`arithmetic`: every equation in the steps is recomputed."""
    slices: tuple[str, ...]
    """Keys of `meta`; the rates are also reported per value of each key."""
    pass_at: tuple[Count, ...]
    """k of the unbiased pass@k; each at most `generation.num_return_sequences`."""
