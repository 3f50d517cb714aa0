"""Which runs may be compared: those that were asked the same; all others are refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.comparison.conftest import Toys
from tests.conftest import ROOT
from tunix_rt.comparison.pairs import aligned, paired
from tunix_rt.errors import InputError
from tunix_rt.files import read_json, write_json
from tunix_rt.runs.folder import RunFolder


def test_items_are_paired_by_id_and_sample(toys: Toys) -> None:
    left, right = toys.run("e/a", [[True, False], [False, False]]), toys.run("e/b", [[True, True], [False, True]])
    found = [(pair.id, pair.sample, pair.left["correct"], pair.right["correct"]) for pair in paired(left, right)]
    assert found == [("id0", 0, True, True), ("id0", 1, False, True), ("id1", 0, False, False), ("id1", 1, False, True)]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "prompts": ({"prompt": ["1+1=", "9+9="]}, r'2 of 2 differ, the first in the prompt of id0: "0\+0=" and "1\+1="'),
    "references": ({"reference": ["0", "3"]}, 'the first in the reference of id1: "2" and "3"'),
    "ids": ({"id": ["id0", "other"]}, "2 and 2 prompts; 1 answers are to a question of both"),
    "split": ({"config": {"generation.split": "validation"}}, "answered different splits: test and validation"),
    "scorer": ({"config": {"evaluation.scorers": [{"kind": "number"}]}}, "judged by different rules .*number"),
    "extract": ({"config": {"evaluation.extract": ["boxed"]}}, "judged by different rules .*boxed"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_questions_or_rules_are_refused_with_the_reason(what: str, toys: Toys) -> None:
    changes, reason = REFUSED[what]
    left, right = toys.run("e/a", [False, True]), toys.run("e/b", [False, True], **changes)
    with pytest.raises(InputError, match=reason):
        paired(left, right)


def test_a_second_scorer_is_judged_by_its_own_rules(toys: Toys) -> None:
    """Prevents: `scores.text` of two runs paired, of which one counts case and the other does not."""
    first = {"kind": "exact"}
    runs = [
        toys.run(f"e/{name}", [True], {"evaluation.scorers": [first, {"kind": "text", "ignore_case": name == "b"}]})
        for name in "abc"
    ]
    assert aligned(runs).keys == aligned(runs, metric="scores.exact").keys
    assert len(aligned(runs[::2], metric="scores.text.word_f1").keys) == 1
    for metric in ("scores.text", "scores.text.word_f1"):
        with pytest.raises(InputError, match=r"judged by different rules .*ignore_case"):
            aligned(runs[:2], metric=metric)
    other = toys.run("e/d", [True], {"evaluation.scorers": [{"kind": "number"}, first]})
    assert len(aligned([runs[0], other], metric="scores.exact").keys) == 1, "both are judged so, whichever decides"


def test_other_numbers_of_samples_are_refused(toys: Toys) -> None:
    left, right = toys.run("e/a", [True, True]), toys.run("e/b", [[True, False], [True, True]])
    with pytest.raises(InputError, match="1 and 2 samples per prompt"):
        paired(left, right)
    assert len(paired(left, right, common=True)) == 2


def test_common_pairs_what_both_were_asked_and_counts_the_rest(toys: Toys) -> None:
    left, right = toys.run("e/a", [True] * 5), toys.run("e/b", [True] * 4, first=2)
    with pytest.raises(InputError, match="5 and 4 prompts; 3 answers are to a question of both"):
        paired(left, right)
    found = aligned((left, right), common=True)
    assert ([name for name, _ in found.keys], found.left_out) == (["id2", "id3", "id4"], (2, 1))
    with pytest.raises(InputError, match="no question in common"):
        paired(left, toys.run("e/c", [True], first=9), common=True)


def test_what_was_asked_besides_the_prompt_counts(toys: Toys) -> None:
    """Prevents: runs with another system message in the data passing as asked the same."""
    left, right = toys.run("e/a", [True, False]), toys.run("e/b", [True, False])
    assert len(paired(left, right)) == 2
    write_json(right.data, read_json(right.data) | {"questions": {"test": "other"}})
    with pytest.raises(InputError, match="other instructions or tools"):
        paired(left, right)
    write_json(right.data, {"name": "of an older version"})
    assert len(paired(left, right)) == 2


def test_an_unfinished_run_is_refused(toys: Toys) -> None:
    left, right = toys.run("e/a", [True]), toys.run("e/b", [True])
    write_json(right.path / "stages.json", {"evaluate": {"state": "begun"}})
    right.end("interrupted")
    with pytest.raises(InputError, match=r"e/b: not finished \(interrupted\), so it has no verdicts"):
        paired(left, right)


def test_a_record_of_an_older_version_is_paired(toys: Toys) -> None:
    (file,) = (ROOT / "tests/records/version_1/runs/older").glob("*/items.jsonl")
    run = RunFolder(file.parent)
    assert [pair.left == pair.right for pair in paired(run, run)] == [True] * 6
