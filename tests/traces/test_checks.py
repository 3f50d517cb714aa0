"""Repeated prompts, and prompts that training shares with evaluation: found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

from tunix_rt.config.choices import Adapter
from tunix_rt.files import read_jsonl
from tunix_rt.traces.adapters import adapt
from tunix_rt.traces.checks import Overlap, find_duplicates, find_overlaps
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.similar import similar_pairs
from tunix_rt.traces.sources import Record
from tunix_rt.traces.trace import Trace


def records(*prompts: str) -> list[Record]:
    return [Record(f"f:{i}", Trace(str(i), prompt, (), "a")) for i, prompt in enumerate(prompts)]


def read(file: Path, adapter: Adapter) -> list[Record]:
    return [Record(f"{file}:{n}", adapt(record, adapter, "f", Rules())) for n, record in read_jsonl(file)]


def test_duplicates_are_found_after_normalisation_or_letter_by_letter() -> None:
    found = records("What is 1 + 1?", "what is  1 + 1?", "What is 1 - 1?", "What is 1 + 1?")
    assert find_duplicates(found, exact=False) == {1: 0, 3: 0}
    assert find_duplicates(found, exact=True) == {3: 0}


def test_an_equal_short_prompt_overlaps_and_a_different_operator_does_not() -> None:
    assert find_overlaps(records("1 - 1", "1 +  1"), records("1 + 1"), 13) == [Overlap(1, (0,), "1 + 1")]


def test_a_run_of_n_words_overlaps_and_one_word_less_does_not() -> None:
    run = "a b c d e f g"
    training = records(f"x {run} y", "a b c d e f x", "q")
    evaluation = records("other", f"{run.upper()} end", f"begin {run}")
    assert find_overlaps(training, evaluation, 7) == [Overlap(0, (1, 2), run)]
    assert [overlap.position for overlap in find_overlaps(training, evaluation, 6)] == [0, 1]


def test_what_many_rows_share_is_no_overlap() -> None:
    """Prevents: a preamble of 13 words that leaves nothing to train on."""
    preamble = "please reason step by step and put your final answer in a box at the end"
    training = records(
        *(f"{preamble} what is {i} + {i}" for i in range(20)), f"{preamble} what is 90 + 1 when it rains"
    )
    evaluation = records(*(f"{preamble} what is {i} + 1" for i in range(90, 95)), "what is 90 + 1 when it rains")
    assert [overlap.position for overlap in find_overlaps(training, evaluation, 6)] == [20]
    few = records(f"{preamble} 1", f"{preamble} 2"), records(f"{preamble} 3", f"{preamble} 4")
    assert find_overlaps(*few, 13) == []
    assert [o.position for o in find_overlaps(training, records(training[3].trace.prompt), 13)] == [3], "equal is equal"


def test_a_run_that_is_a_preamble_but_for_a_word_is_no_overlap() -> None:
    """Prevents: nearly half of the rows left out, since some others begin with the same word behind the preamble."""
    preamble = "please reason step by step and put your final answer in a box at the end"
    names = ("Tom", "Ann", "Eva", "Bob")
    training = records(*(f"{preamble} {names[i % 4]} {' '.join(f'w{i}x{n}' for n in range(13))}" for i in range(40)))
    evaluation = records(*(f"{preamble} {names[i % 4]} buys {i} pears" for i in range(3)), "other")
    assert find_overlaps(training, evaluation, 13) == []
    same = records(f"{preamble} {training[5].trace.prompt.removeprefix(preamble)} and why", "other")
    assert [overlap.position for overlap in find_overlaps(training, same, 13)] == [5]


def test_scripts_without_blanks_are_compared_by_character() -> None:
    chinese = "小明有三个苹果,小红有五个苹果,他们一共有多少个苹果?请写出详细的计算步骤"
    ((position, _, shared),) = find_overlaps(records(chinese), records(f"{chinese}。", "其他"), 13)
    assert position == 0 and shared in chinese
    assert find_overlaps(records("小明有三个苹果"), records("小红有三个梨", "其他"), 13) == []


def test_the_real_traces_repeat_prompts_letter_by_letter(real_data: Path) -> None:
    traces = read(real_data / "tunix_rt_v2" / "traces.jsonl", "trace")
    first: dict[str, int] = {}
    for position, record in enumerate(traces):
        first.setdefault(record.trace.prompt, position)
    repeated = {i: first[r.trace.prompt] for i, r in enumerate(traces) if first[r.trace.prompt] != i}
    assert len(repeated) > 10
    assert find_duplicates(traces, exact=True) == find_duplicates(traces, exact=False) == repeated


def test_the_real_evaluation_set_asks_one_question_again_in_capitals(real_data: Path) -> None:
    items = read(real_data / "tunix_rt_v2" / "eval.jsonl", "evaluation_set")
    assert [items[position].trace.id for position in find_duplicates(items, exact=False)] == ["eval-v2-090"]
    assert find_duplicates(items, exact=True) == {}


def test_three_test_questions_of_gsm8k_share_13_words_with_training(real_data: Path) -> None:
    training = read(real_data / "gsm8k" / "train.jsonl", "gsm8k")
    test = read(real_data / "gsm8k" / "test.jsonl", "gsm8k")
    overlaps = find_overlaps(training, test, 13)
    assert len(overlaps) == 4
    assert len({position for overlap in overlaps for position in overlap.evaluation}) == 3
    for overlap in overlaps:
        assert len(overlap.shared.split()) == 13
        for record in (training[overlap.position], *(test[position] for position in overlap.evaluation)):
            assert overlap.shared in " ".join(record.trace.prompt.casefold().split())
    assert find_duplicates(training, exact=False) == find_duplicates(test, exact=False) == {}


def test_near_duplicates_are_found_in_training_and_against_evaluation() -> None:
    text = "Tom has three red apples and buys {} more at the market. How many apples does he have now?"
    training = records(text.format("five"), "What is the capital of France?", text.format("nine"))
    evaluation = records(text.format("five").replace("red", "green"), "Name a fruit.")
    pairs = list(similar_pairs(training, evaluation, 0.6))
    assert [(pair.record.trace.id, pair.similarity >= 0.6) for pair in pairs] == [("0", True), ("2", True)]
    exact = {training[0].trace.prompt[i : i + 5].lower() for i in range(len(training[0].trace.prompt) - 4)}
    other = {evaluation[0].trace.prompt[i : i + 5].lower() for i in range(len(evaluation[0].trace.prompt) - 4)}
    assert abs(pairs[0].similarity - len(exact & other) / len(exact | other)) < 0.15, "an estimate of the Jaccard index"
    assert list(similar_pairs(training, records(training[0].trace.prompt), 0.95)) == [], "equal ones are duplicates"
    assert pairs == list(similar_pairs(training, evaluation, 0.6)), "the same every time"
