"""Scorers of other packages: found by their entry points, checked as ours are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Union

import pytest
from pydantic import Discriminator

from tests.evaluation import toy_package
from tunix_rt.config.load import check_section
from tunix_rt.config.scorers import UNUSABLE, scorer_sections
from tunix_rt.errors import ConfigError
from tunix_rt.evaluation.scorer import Question

POINTS = {
    "near": "toy_scorer:NearScorer",
    "exact": "toy_scorer:NearScorer",
    "far": "toy_scorer:NearScorer",
    "away": "toy_scorer_of_old:NearScorer",
    "mute": "toy_scorer:MuteScorer",
    "loose": "toy_scorer:Question",
}


@pytest.fixture
def scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Check a section of a scorer as a process does that starts with the toy package installed."""
    toy_package.install(tmp_path, **POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    hint: Any = Annotated[Union[scorer_sections()], Discriminator("kind")]  # noqa: UP007 (made at run time)
    yield lambda **values: check_section("evaluation.scorers", hint, values)
    UNUSABLE.clear()


def test_a_scorer_of_another_package_is_named_and_checked_like_ours(scorer: Callable[..., Any]) -> None:
    near = scorer(kind="near", within=4)
    assert near.match("11", Question("12")).equal and near.match("10", Question("12")).values == {"nearness": 0.5}
    with pytest.raises(ConfigError, match=r"evaluation\.scorers\.within: got 0, expected greater than 0"):
        scorer(kind="near", within=0)
    with pytest.raises(ConfigError, match=r"evaluation\.scorers\.withn: unknown key; did you mean 'within'\?"):
        scorer(kind="near", withn=1.0)
    assert scorer(kind="exact").match("a", Question("a")).reason  # ours, not the one of that name


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("far", r'\(toy_scorer:NearScorer\) cannot be used: it needs `kind: Literal\["far"\]`'),
        ("away", r"package toy-scorers \(toy_scorer_of_old:NearScorer\) .*: No module named 'toy_scorer_of_old'"),
        ("mute", r"it has no `match`"),
        ("loose", r"it is no @section class that derives from tunix_rt\.evaluation\.scorer\.Scorer"),
        ("none", r"got 'none', allowed: 'choice', .*, 'near'$"),
    ],
)
def test_one_that_cannot_be_used_says_why_when_it_is_named(kind: str, problem: str, scorer: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=problem):
        scorer(kind=kind)
