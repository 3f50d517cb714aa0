"""Parity problems: true steps in the declared share of the traces, and one token for each parity that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import config_of
from tunix_rt.config.dataset import ParitySource
from tunix_rt.errors import DataError
from tunix_rt.models.folder import write_generation_config
from tunix_rt.models.tokenizer import Tokenizer, train_char
from tunix_rt.traces.format import formatter
from tunix_rt.traces.generated import generate
from tunix_rt.traces.sources import has_split, source_files
from tunix_rt.traces.trace import Trace


def parity(**changed: Any) -> ParitySource:
    values = {"kind": "parity", "version": 1, "bits": 16, "steps_share": 0.25, "num_traces": 400}
    return ParitySource(**(values | changed))


def by_id(source: ParitySource, seed: int = 0) -> dict[str, Trace]:
    return {trace.id: trace for trace in generate(source, seed)}


def test_every_step_is_the_parity_so_far_and_the_answer_that_of_all_bits() -> None:
    for trace in generate(parity(bits=5, steps_share=1.0, num_traces=None), 0):
        bits = trace.prompt.removesuffix("=")
        ones = [bits[:end].count("1") % 2 for end in range(1, 6)]
        assert [step.content for step in trace.steps] == [str(number) for number in ones[:-1]]
        assert trace.final_answer == str(ones[-1])


def test_the_declared_share_has_steps_and_the_rest_of_a_trace_does_not_depend_on_it() -> None:
    none, some, every = (by_id(parity(steps_share=share, num_traces=1000)) for share in (0.0, 0.25, 1.0))
    written = {name for name, trace in some.items() if trace.steps}
    assert 200 < len(written) < 300
    assert not any(trace.steps for trace in none.values())
    assert all(trace.steps == every[name].steps for name, trace in some.items() if name in written)
    assert list(none) == list(some) == list(every)
    assert {name for name, trace in by_id(parity(num_traces=1000), seed=1).items() if trace.steps} != written


def test_more_traces_begin_with_the_fewer_ones_and_all_of_them_exist_once() -> None:
    few, many = (list(generate(parity(num_traces=n), 0)) for n in (20, 50))
    assert many[:20] == few
    assert list(by_id(parity(bits=3, num_traces=None))) == ["000", "001", "010", "011", "100", "101", "110", "111"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bits": 4, "num_traces": 17}, "17 distinct problems asked for, but only 16 have bits=4; lower it or raise"),
        ({"bits": 32, "num_traces": None}, "null means all, and 4,294,967,296 problems have bits=32; give a number"),
    ],
)
def test_a_number_of_problems_that_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        list(generate(parity(**changed), 0))
    assert message in str(caught.value)


def test_a_generated_source_is_for_training_until_some_is_held_out() -> None:
    assert [has_split(parity(), split) for split in ("train", "validation", "test")] == [True, False, False]
    assert source_files(parity()) == []


def test_the_experiments_text_is_that_of_the_paper_one_token_for_each_parity(tmp_path: Path) -> None:
    """arXiv 2510.11495, figure 1: all parities, or the last alone, and nothing tells which it will be."""
    config = config_of(["+experiment=rl_parity_sft"])
    train_char(["0101=01"], None, tmp_path, config.tokenizer.added_tokens)
    write_generation_config(tmp_path, (1,), 0)
    tokenizer = Tokenizer.load(tmp_path)
    written = formatter(config.format, tokenizer)
    for share, num_tokens in ((0.0, 1), (1.0, 16)):
        (trace,) = generate(parity(steps_share=share, num_traces=1), 0)
        prompt, *parts, end = (part.text for part in written.parts(trace))
        assert (prompt, end) == (trace.prompt, "<end>")
        ids = tokenizer.ids("".join(parts))
        assert len(ids) == num_tokens
        parsed = written.parse(tokenizer.decode(ids))
        assert (list(parsed.steps), parsed.answer) == ([step.content for step in trace.steps], trace.final_answer)
