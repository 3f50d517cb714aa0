"""Membership is a threshold on a hash: growth moves nothing, groups stay together, shares are what was asked."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.config.dataset import SplitConfig
from tunix_rt.traces.dataset import hash_order, share_of, split_at
from tunix_rt.traces.keys import group_hash
from tunix_rt.traces.trace import Trace


def trace(prompt: str, group: object = None, identity: str = "i") -> Trace:
    return Trace(identity, prompt, (), "a", {} if group is None else {"group": group})


TRACES = [trace(f"question {i}", identity=str(i)) for i in range(4_000)]


def members(split: str, validation: float, test: float, seed: int = 0) -> set[str]:
    shares = SplitConfig(validation=validation, test=test)
    return {item.prompt for item in TRACES if split_at(share_of(item, seed), shares) == split}


def test_shares_are_what_was_asked_and_every_trace_has_a_split() -> None:
    parts = [members(split, 0.1, 0.2) for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(TRACES)
    for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
        assert abs(len(part) / len(TRACES) - share) < 0.03  # 4 standard deviations


def test_a_share_moves_nothing_in_or_out_of_the_other_held_out_split() -> None:
    assert members("test", 0.0, 0.2) == members("test", 0.3, 0.2)
    assert members("validation", 0.1, 0.0) == members("validation", 0.1, 0.5)
    assert members("test", 0.1, 0.1) < members("test", 0.1, 0.2)


def test_another_seed_holds_out_others() -> None:
    assert members("test", 0.0, 0.2, seed=1) != members("test", 0.0, 0.2, seed=0)


@given(st.integers(0, 10**6), st.text(max_size=20))
def test_without_shares_everything_is_trained_on(seed: int, prompt: str) -> None:
    assert split_at(share_of(trace(prompt), seed), SplitConfig(validation=0.0, test=0.0)) == "train"


@given(st.integers(0, 1_000), st.floats(0.01, 0.6), st.integers(0, 50))
def test_a_group_is_never_torn_and_a_prompt_is_the_same_after_normalisation(
    seed: int, share: float, number: int
) -> None:
    shares = SplitConfig(validation=0.2, test=share)
    assert split_at(share_of(trace("47*86=", "47*86"), seed), shares) == split_at(
        share_of(trace("86*47=", "47*86"), seed), shares
    )
    assert split_at(share_of(trace(f"How  MANY {number}"), seed), shares) == split_at(
        share_of(trace(f"how many {number} "), seed), shares
    )


def test_a_limit_takes_the_lowest_so_growth_only_sends_to_unused() -> None:
    def lowest(items: list[Trace]) -> list[str]:
        return [
            item.prompt for item in sorted(items, key=lambda item: hash_order(group_hash(item, 0), item.id, 0))[:100]
        ]

    before, after = lowest(TRACES[:2_000]), lowest(TRACES)
    old = {item.prompt for item in TRACES[:2_000]}
    assert set(after) & old < set(before)
    assert [prompt for prompt in before if prompt in set(after)] == [p for p in after if p in old], "same order"


def test_traces_of_a_group_are_neighbours_in_the_order() -> None:
    items = [trace(f"{i}", i % 50, identity=str(i)) for i in range(200)]
    groups = [
        item.meta["group"] for item in sorted(items, key=lambda item: hash_order(group_hash(item, 0), item.id, 0))
    ]
    assert sum(a != b for a, b in pairwise(groups)) == 49
