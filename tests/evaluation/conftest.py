"""Small values to judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tunix_rt.config.results import EvaluationConfig
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

DEFAULTS: dict[str, Any] = {
    "answer": "numeric",
    "extract": "format",
    "relative_tolerance": 0.0,
    "steps": "arithmetic",
    "slices": (),
    "pass_at": (),
}


@pytest.fixture
def rules() -> Callable[..., EvaluationConfig]:
    """Make an `evaluation` section; what is not given is numeric, exact, from the format."""
    return lambda **values: EvaluationConfig(**(DEFAULTS | values))


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
