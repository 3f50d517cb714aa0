"""What objectives that learn from the model's own answers have in common: how it answers, and what that is worth."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, MinLen

from tunix_rt.config.section import Count, Execution, Natural, Text, Tokens, Unit, section

COMPONENTS = ("answer", "format", "steps", "length")
"""Components of a reward that are no scorer of their own."""


@section
class RolloutConfig:
    """The answers of a step: sampled at temperature 1 from the whole distribution, so that they are the model's own.

    The prompts of a step depend on (`training.seed`, step), an answer's random numbers on (`training.seed`, step,
    prompt, number of the sample).
    """

    prompts_per_step: Annotated[Count, Unit("prompts")]
    """Prompts of one rollout, from the training split."""
    samples_per_prompt: Annotated[Count, Unit("answers")]
    """Answers to each prompt; they are compared with each other."""
    max_new_tokens: Tokens
    """Most tokens of an answer; a longer one is truncated."""
    updates: Annotated[Count, Unit("updates")]
    """Updates on each rollout, all of it each time; 1: every update has fresh answers."""
    resample: Annotated[Natural, Unit("rounds")]
    """Rounds in which prompts whose answers all got one reward, so that nothing can be learned, are replaced by further
    ones (dynamic sampling, arXiv 2503.14476); 0: they stay."""
    batch_size: Execution[Annotated[Count, Unit("sequences")]]
    """Sequences decoded together."""


@section
class RewardConfig:
    """The reward of an answer: a weighted sum of the product's own verdicts, found in a process with limits."""

    weights: Annotated[dict[Text, float], MinLen(1)]
    """Component → weight: `answer` (the first scorer's verdict), `format`, `steps`, `length`, or the name of a further
    scorer of `evaluation.scorers` (docs/rewards.md)."""
    seconds: Annotated[float, Gt(0), Unit("seconds")]
    """Most time for the verdict on one answer; after that it is 0, and counted."""
    megabytes: Annotated[int, Ge(256), Unit("megabytes")]
    """Memory of the process that judges."""
