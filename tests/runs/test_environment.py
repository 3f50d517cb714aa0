"""The record of the surroundings: complete, and without secrets."""

from __future__ import annotations

import pytest

from tunix_rt.runs.environment import fingerprint, gather, mask


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tracking.uri=http://me:hunter2@host:5000/x", "tracking.uri=http://me:***@host:5000/x"),
        ("http://me:a@b:c@host/x", "http://me:***@host/x"),
        ("HF_TOKEN=abc python run", "HF_TOKEN=*** python run"),
        ("api_key=abc password=x plain=y", "api_key=*** password=*** plain=y"),
        ("optimizer.learning_rate=1e-3", "optimizer.learning_rate=1e-3"),
        ("generation.max_new_tokens=8", "generation.max_new_tokens=8"),
    ],
)
def test_secrets_are_masked(text: str, expected: str) -> None:
    assert mask(text) == expected


def test_what_is_gathered() -> None:
    record = gather(["python", "-m", "tunix_rt", "HF_TOKEN=abc"], {"name": "torch"})
    assert record["command"] == "python -m tunix_rt HF_TOKEN=***"
    assert record["packages"]["numpy"]
    assert record["machine"]["cores"] >= 1
    assert record["git"] is None or len(record["git"]["commit"]) == 40


def test_the_fingerprint_sees_threads_and_versions() -> None:
    base = {"threads": "2", "jax": "1"}
    assert fingerprint(base) == fingerprint({"jax": "1", "threads": "2"})
    assert fingerprint(base) != fingerprint(base | {"threads": "1"})
