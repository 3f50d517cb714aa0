"""`dataset.limit.balance`: equally many of each value, smaller sets inside of larger ones, the test as it comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tunix_rt.config.dataset import ArithmeticSource, DatasetConfig, LimitConfig, SplitConfig
from tunix_rt.errors import DataError
from tunix_rt.traces.dataset import collect

Ids = dict[str, int]
"""Id → number of carries."""


@pytest.fixture(scope="module")
def limited(
    arithmetic: Callable[..., ArithmeticSource], dataset: Callable[..., DatasetConfig]
) -> Callable[..., tuple[Ids, Ids]]:
    def collected(train: int, balance: str | None = "carries", wording: str = "plain") -> tuple[Ids, Ids]:
        source = arithmetic(operation="add", digits=(3, 3), fewest_digits=1, wording=wording, num_traces=1500)
        limit = LimitConfig(train=train, validation=None, test=100, balance=balance)
        found = collect(dataset(source, split=SplitConfig(validation=0.0, test=0.2), limit=limit)).splits
        train_ids, test_ids = ({t.id: t.meta["carries"] for t in found[split]} for split in ("train", "test"))
        return train_ids, test_ids

    return collected


def test_equally_many_of_each_value_in_training_and_the_test_as_it_comes(
    limited: Callable[..., tuple[Ids, Ids]],
) -> None:
    train, test = limited(402)
    assert sorted(Counter(train.values()).values()) == [100, 100, 101, 101]
    natural, same = limited(402, None)
    assert test == same, "the balance concerns the training set only"
    assert max(Counter(natural.values()).values()) > 120
    assert not {tuple(sorted(name.split("+"))) for name in train} & {tuple(sorted(name.split("+"))) for name in test}


def test_a_smaller_set_is_a_part_of_a_larger_one_whatever_the_format(limited: Callable[..., tuple[Ids, Ids]]) -> None:
    sizes = (50, 203, 402)
    sets = [limited(size, wording="reversed")[0] for size in sizes]
    assert [len(found) for found in sets] == list(sizes)
    assert sets[0].items() < sets[1].items() < sets[2].items()
    assert list(sets[2]) == list(limited(402)[0]), "and in the same order"


def test_what_runs_out_is_filled_with_the_others(limited: Callable[..., tuple[Ids, Ids]]) -> None:
    counts = Counter(limited(1000)[0].values())
    assert sum(counts.values()) == 1000
    assert counts[3] < counts[1], "there are fewer than 250 with three carries"


def test_a_key_that_no_trace_has_is_named(limited: Callable[..., tuple[Ids, Ids]]) -> None:
    with pytest.raises(DataError, match=r"limit\.balance: no training trace has meta\.carry; there are .*carries"):
        limited(10, "carry")
