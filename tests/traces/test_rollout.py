"""Rollouts on disk: what is read is what was sampled, to the last bit of a log-probability."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tunix_rt.errors import DataError
from tunix_rt.traces.rollout import Rollout, exact, read_rollouts, rollout_steps, rollouts_file, write_rollouts

ROLLOUT = Rollout(
    id="a",
    sample=1,
    prompt="1+1=",
    reference="2",
    completion="ä\u2028;2",
    answer="2",
    steps=("ä\u2028",),
    finish_reason="stop",
    ids=(5, 6, 7, 4),
    logprobs=exact(np.float32([-0.1, -1e-8, -17.25, -1 / 3])),
    reward=0.75,
    rewards={"answer": 1.0, "length": -0.25},
    advantage=0.125,
)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    file = rollouts_file(tmp_path, 10)
    write_rollouts(file, [ROLLOUT])
    assert (file.name, rollout_steps(tmp_path), read_rollouts(file)) == ("step_00000010.jsonl", [10], [ROLLOUT])
    assert rollout_steps(tmp_path / "none") == []


def test_log_probabilities_are_short_and_exact_as_float32() -> None:
    values = np.random.default_rng(0).standard_exponential(10_000).astype(np.float32)
    read = json.loads(json.dumps(exact(values)))
    assert np.array_equal(np.array(read, np.float32), values)
    assert max(len(repr(value)) for value in read) < 16


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    file = rollouts_file(tmp_path, 1)
    write_rollouts(file, [ROLLOUT])
    file.write_text(file.read_text("utf-8") + '{"id": "b"}\n', "utf-8")
    with pytest.raises(DataError, match=r"step_00000001.jsonl:2: not a rollout \('steps'\)"):
        read_rollouts(file)
