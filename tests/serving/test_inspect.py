"""inspect_ai evaluates a served run through its provider for OpenAI-compatible endpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.conftest import Program

pytestmark = [
    pytest.mark.acceptance,
    # What inspect_ai calls deprecated, and leaves open at its end.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_an_evaluation(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is the recorded one: what is asked for exactly is found exactly."""
    import inspect_ai
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.scorer import exact
    from inspect_ai.solver import generate

    recorded = program.predictions()
    monkeypatch.setenv("LOCAL_API_KEY", "none")
    monkeypatch.setenv("LOCAL_BASE_URL", f"{program.url}/v1")
    samples = MemoryDataset([Sample(one["prompt"], target=one["completion"]) for one in recorded])
    (log,) = inspect_ai.eval(
        inspect_ai.Task(dataset=samples, solver=generate(), scorer=exact()),
        model="openai-api/local/quickstart",
        log_dir=str(tmp_path),
        display="none",
        epochs=2,
    )
    assert log.status == "success", log.error
    assert log.samples is not None and len(log.samples) == 2 * len(recorded)
    by_prompt = {one["prompt"]: one["completion"] for one in recorded}
    assert all(one.output.completion == by_prompt[str(one.input)] for one in log.samples)
