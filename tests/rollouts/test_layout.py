"""Sequences in rows: every sampled token is a target once, nothing else is, and there are few shapes."""

from __future__ import annotations

import numpy as np
import pytest

from tunix_rt.batches.encoded import Int32
from tunix_rt.batches.pack import few
from tunix_rt.rollouts.layout import RowShape, lay_out

SHAPE = RowShape(length=8, packing=True)


def ids(*values: int) -> Int32:
    return np.array(values, np.int32)


def test_two_sequences_in_a_row_by_hand() -> None:
    """The stop token 9 is a target, the first token after a prompt is the target of the prompt's last position."""
    layout = lay_out([ids(1, 2, 3), ids(1, 4)], [ids(5, 9), ids(6, 7, 9)], SHAPE)
    batch = layout.weighted(np.array([0.5, -0.5, 1.0, 2.0, 3.0]))
    assert batch.tokens.tolist() == [[1, 2, 3, 5, 1, 4, 6, 7]]
    assert batch.targets.tolist() == [[2, 3, 5, 9, 4, 6, 7, 9]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]
    assert batch.segments.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2]]
    assert batch.weights.tolist() == [[0, 0, 0.5, -0.5, 0, 1, 2, 3]]
    assert layout.of_sampled(batch.weights).tolist() == [0.5, -0.5, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("packing", [True, False])
def test_every_sampled_token_is_a_target_once_in_the_order_of_the_sequences(packing: bool) -> None:
    random = np.random.default_rng(0)
    prompts = [random.integers(1, 99, random.integers(2, 6)).astype(np.int32) for _ in range(40)]
    sampled = [random.integers(1, 99, random.integers(1, 4)).astype(np.int32) for _ in range(40)]
    layout = lay_out(prompts, sampled, RowShape(8, packing))
    assert layout.batch.targets.reshape(-1)[layout.places].tolist() == np.concatenate(sampled).tolist()
    assert len(set(layout.places.tolist())) == len(layout.places)
    before = layout.batch.tokens.reshape(-1)[layout.places]
    expected = [np.concatenate([prompt[-1:], ids[:-1]]) for prompt, ids in zip(prompts, sampled, strict=True)]
    assert before.tolist() == np.concatenate(expected).tolist()
    assert int((layout.batch.segments > 0).sum()) == sum(map(len, prompts)) + sum(map(len, sampled)) - 40
    assert not layout.batch.weights.any()


def test_equal_answers_to_one_prompt_are_computed_once() -> None:
    """Their weights add up; the same answer to another prompt is another sequence."""
    prompts, sampled = [ids(1, 2), ids(3, 4), ids(1, 2), ids(1, 2)], [ids(5, 9), ids(5, 9), ids(5, 9), ids(6, 9)]
    layout = lay_out(prompts, sampled, SHAPE)
    batch = layout.weighted(np.array([1.0, 2.0, 10.0, 20.0, 0.5, 0.25, -1.0, -2.0]))
    assert int((batch.segments > 0).sum()) == 3 * 3
    assert batch.weights[batch.weights != 0].tolist() == [1.5, 2.25, 10.0, 20.0, -1.0, -2.0]
    assert layout.mask().weights.sum() == 6
    assert layout.of_sampled(batch.targets).tolist() == [5, 9, 5, 9, 5, 9, 6, 9]


def test_there_are_few_shapes_and_none_is_much_too_large() -> None:
    assert [few(size) for size in (1, 2, 3, 4, 5, 7, 12, 13, 17, 25)] == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    sizes = {few(rows) for rows in range(1, 500)}
    assert len(sizes) < 20 and max(sizes) <= 1.5 * 500
