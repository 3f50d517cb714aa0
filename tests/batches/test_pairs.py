"""Batches of pairs: a function of (seed, step), both members in one update, every token where its sequence says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tunix_rt.batches.encoded import REJECTED, Encoded, write_encoded
from tunix_rt.batches.pairs import EncodedPairs, PairOrder, sequential_pairs
from tunix_rt.errors import ConfigError, DataError

CHOSEN, LOSERS = (5, 3, 9, 4, 7, 2, 6), (4, 8, 3, 3, 9, 6, 2)
MakePairs = Callable[..., EncodedPairs]


@pytest.fixture
def make_pairs(tmp_path: Path) -> MakePairs:
    """Pairs of given lengths in tokens; token n of sequence s is 100 * s + n, and the last two thirds are targets."""

    def make(chosen: Sequence[int] = CHOSEN, rejected: Sequence[int] = LOSERS, names: str = "abcdefg") -> EncodedPairs:
        for member, (lengths, folder) in enumerate(((chosen, tmp_path), (rejected, tmp_path / REJECTED))):
            items = []
            for pair, length in enumerate(lengths):
                ids = np.arange(length, dtype=np.int32) + 100 * (2 * pair + member)
                items.append((names[pair], Encoded(ids, (np.arange(length) >= length // 3).astype(np.float32))))
            write_encoded(folder, items)
        return EncodedPairs.open(tmp_path)

    return make


@pytest.mark.parametrize("packing", [True, False])
def test_every_pair_comes_once_an_epoch_and_every_token_is_where_its_sequence_is(
    make_pairs: MakePairs, packing: bool
) -> None:
    dataset = make_pairs()
    order = PairOrder(dataset, 8, packing, pairs_per_step=3, seed=4, num_epochs=2)
    assert (order.num_steps, order.steps_per_epoch) == (5, 7 / 3)
    seen = Counter[int]()
    for step in range(5):
        found = order.batch_at(step)
        seen.update(found.pairs)
        assert found.batch.tokens.shape[1] == 8
        assert order.ids_at(step) == ["abcdefg"[pair] for pair in found.pairs]
        assert np.all(np.diff(found.sequence) >= 0)
        for place, index in enumerate(found.indices):
            tokens, targets, weights = dataset.example(index)
            own = found.places[found.sequence == place]
            for name, values in (("tokens", tokens), ("targets", targets)):
                assert getattr(found.batch, name).reshape(-1)[own].tolist() == values[weights > 0].tolist()
        assert found.batch.weights.sum() == len(found.places)
        assert np.count_nonzero(found.batch.segments) == dataset.lengths[found.indices].sum(), "nothing else is there"
    assert seen == dict.fromkeys(range(7), 2)
    first = [order.batch_at(step).pairs for step in range(5)]
    again = PairOrder(dataset, 8, packing, pairs_per_step=3, seed=4, num_epochs=None)
    assert [again.batch_at(step).pairs for step in range(4)] == first[:4], "however many epochs there are"
    other = PairOrder(dataset, 8, packing, pairs_per_step=3, seed=5, num_epochs=2)
    assert [other.batch_at(step).pairs for step in range(5)] != first


def test_weights_and_log_probabilities_go_there_and_back(make_pairs: MakePairs) -> None:
    (found,) = sequential_pairs(make_pairs(), 8, True, together=7)
    assert found.pairs == tuple(range(7))
    assert found.counts.tolist() == [n - max(n // 3, 1) for pair in zip(CHOSEN, LOSERS, strict=True) for n in pair]
    weights = np.linspace(-1, 1, len(found.places)).astype(np.float32).astype(np.float64)
    batch = found.weighted(weights)
    assert batch.divisor == 1.0 and np.count_nonzero(batch.weights) <= len(weights)
    assert found.taken(batch.weights).tolist() == weights.tolist()


def test_what_is_no_set_of_pairs_is_refused(make_pairs: MakePairs, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.row_length: 6, but the longest trace takes 8"):
        PairOrder(make_pairs(), 6, True, 1, 0, None)
    with pytest.raises(DataError, match="there is no pair to train on"):
        PairOrder(make_pairs((), ()), 6, True, 1, 0, None)
    make_pairs((3, 3), (3, 3))
    write_encoded(tmp_path / REJECTED, [("a", Encoded(np.arange(3, dtype=np.int32), np.ones(3, np.float32)))])
    with pytest.raises(DataError, match="not the same pairs as in rejected/"):
        EncodedPairs.open(tmp_path)
