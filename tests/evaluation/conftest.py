"""Small values to judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.evaluation.scorers import scorer
from tunix_rt.config.results import EvaluationConfig
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

DEFAULTS: dict[str, Any] = {
    "extract": ("format",),
    "steps": "arithmetic",
    "slices": (),
    "pass_at": (),
}


@pytest.fixture
def rules() -> Callable[..., EvaluationConfig]:
    """Make an `evaluation` section of some kinds of scorers; by default `number`, from the format."""

    def make(*kinds: str, **values: Any) -> EvaluationConfig:
        scorers = tuple(scorer(kind) for kind in kinds or ("number",))
        return EvaluationConfig(**(DEFAULTS | {"scorers": scorers} | values))

    return make


@pytest.fixture
def predict() -> Callable[..., Prediction]:
    """Make a prediction of trace `id` whose answer and completion are `answer`."""

    def make(id: str, answer: str | None, sample: int = 0, **values: Any) -> Prediction:
        facts: dict[str, Any] = {
            "id": id,
            "sample": sample,
            "prompt": f"<{id}>",
            "reference": "12",
            "completion": answer or "",
            "steps": (),
            "answer": answer,
            "finish_reason": "stop",
            "error": None,
            "num_prompt_tokens": 3,
            "num_new_tokens": 5,
            "logprobs": (),
        }
        return Prediction(**(facts | values))

    return make


@pytest.fixture
def ask() -> Callable[..., Trace]:
    """Make a trace of an id and an answer."""
    return lambda id, answer="12", **meta: Trace(id, f"prompt {id}", (), answer, meta)
