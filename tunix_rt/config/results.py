"""The sections `generation` and `evaluation`: how the model answers and how answers are judged."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from tunix_rt.config.scorers import ScorerConfig
from tunix_rt.config.section import Added, Count, Execution, Natural, Text, Tokens, Unit, section

InterventionKind = Literal["truncated", "corrupted", "filler"]


@section
class InterventionConfig:
    """Changes to the steps of answered prompts, after which the model goes on: does its answer follow from its steps?

    Lanham et al. 2023, arXiv 2307.13702. Only first samples that have steps and an answer in the format are changed.
    """

    kinds: tuple[InterventionKind, ...]
    """`truncated`: after each number of steps, none and all included, the answer is asked for; `corrupted`: one step
    after the other gets a mistake, and the model goes on; `filler`: as `truncated`, with `filler` in place of the
    steps."""
    num_prompts: Annotated[Count, Unit("prompts")] | None
    """How many, from the first prompt of the split on; null: all."""
    filler: Text
    """Repeated up to the length of each step that it replaces."""

    def __post_init__(self) -> None:
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ValueError("kinds: name at least one, and each once")


@section
class GenerationConfig:
    """Decoding. A row's text depends only on its prompt, the seed, its id and its sample number."""

    seed: Natural = 0
    """Seed for sampling. null: the experiment's `seed`."""
    split: Literal["train", "validation", "test"]
    """Which prompts are answered; those of `train` to learn from the answers (docs/preferences.md)."""
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
    interventions: Added[InterventionConfig | None] = None
    """Whether answers follow from steps is measured by changing the steps; null: not."""
    also_greedy: Added[bool | None] = None
    """Each prompt is also answered greedily, and the majority of the samples compared with that; null: not."""

    def __post_init__(self) -> None:
        if self.temperature == 0 and (self.top_k is not None or self.top_p is not None):
            raise ValueError("temperature 0 is greedy: top_k and top_p must be null")
        if self.temperature == 0 and self.also_greedy:
            raise ValueError("temperature 0 is greedy: also_greedy must be null")
        if self.temperature == 0 and self.num_return_sequences > 1:
            raise ValueError("temperature 0 gives the same text every time: num_return_sequences must be 1")

    def greedy(self) -> GenerationConfig:
        """The same decoding, but each prompt is answered once and greedily."""
        return replace(self, temperature=0.0, top_k=None, top_p=None, num_return_sequences=1, also_greedy=None)


Marker = Literal["format", "hashes", "boxed", "phrase", "fence", "last_number"]


@section
class EvaluationConfig:
    """Rules for answers and steps. Changing them never needs new generation."""

    scorers: tuple[ScorerConfig, ...]
    """What judges an answer. The first one decides `correct`, everywhere; each further one has its own rate."""
    extract: tuple[Marker, ...]
    """Where an answer is looked for, the strongest marker first; the first that finds something wins. `format`: where
    the format puts it; `hashes`: behind `####`; `boxed`: in the last `\\boxed{}`; `phrase`: behind `the answer is` or
    `Answer:`; `fence`: in the last fenced block of code; `last_number`: the last number of the completion."""
    steps: Literal["none", "arithmetic"]
    """`arithmetic`: every equation in the steps is recomputed."""
    slices: tuple[str, ...]
    """Keys of `meta`; the rates are also reported per value of each key."""
    pass_at: tuple[Count, ...]
    """k of the unbiased pass@k, each at most `generation.num_return_sequences`; empty: every k up to that number, if it
    is more than 1."""

    def __post_init__(self) -> None:
        for what, names in (("scorers", [scorer.kind for scorer in self.scorers]), ("extract", self.extract)):
            if not names:
                raise ValueError(f"{what}: name at least one")
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"{what}: {twice[0]!r} is there twice; name each once")

    @property
    def decisive(self) -> Any:
        """The scorer that decides whether an answer is right."""
        return self.scorers[0]
