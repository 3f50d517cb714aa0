"""predictions.jsonl is always valid, one line per prompt and sample, whatever fails; and it goes on by id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import config_of
from tests.inference.conftest import Scripted
from tunix_rt.batches.reader import Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import Interrupted, OutOfMemory, RunError
from tunix_rt.files import read_jsonl
from tunix_rt.inference.loop import predict, row_seed
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.traces.prediction import Prediction, read_predictions
from tunix_rt.traces.trace import Trace

TRACES = [Trace(f"t{i}", f"{i}*{i}=", (), str(i * i)) for i in range(10, 16)]
GREEDY = replace(config_of().generation, batch_size=2)


def run(
    backend: Scripted, folder: Path, traces: list[Trace] = TRACES, generation: GenerationConfig = GREEDY
) -> list[Prediction]:
    interrupt = Interrupt(folder / "stop")
    return predict(backend, None, backend.reader, traces, generation, 0, folder / "p.jsonl", interrupt)  # type: ignore[arg-type]


def square(text: str) -> str:
    number = int(text.split("*")[0])
    return f"{number}+0={number};{number * number}"


def test_a_prediction_holds_the_parsed_answer(reader: Reader, tmp_path: Path) -> None:
    predictions = run(Scripted(reader, square), tmp_path)
    assert [p.id for p in predictions] == [trace.id for trace in TRACES]
    first = predictions[0]
    assert (first.prompt, first.completion, first.steps, first.answer) == ("10*10=", "10+0=10;100", ("10+0=10",), "100")
    assert (first.finish_reason, first.num_prompt_tokens, first.num_new_tokens) == ("stop", 6, 11)
    assert first.logprobs == (-0.5,) * 11
    assert list(read_predictions(tmp_path / "p.jsonl")) == predictions


def test_what_cannot_be_asked_is_a_line_with_its_reason(reader: Reader, tmp_path: Path) -> None:
    long, foreign = Trace("long", "1" * 200, (), "1"), Trace("foreign", "12ä=", (), "1")
    predictions = run(Scripted(reader, square), tmp_path, [*TRACES, long, foreign])
    by_id = {p.id: p for p in predictions}
    assert by_id["long"].error == "prompt of 200 tokens, the model has 128 positions"
    assert by_id["foreign"].error == "not in the vocabulary: 'ä'"
    assert by_id["t10"].finish_reason == "stop"
    assert len([*read_jsonl(tmp_path / "p.jsonl")]) == 8


def test_a_device_failure_costs_its_batch_and_the_run_goes_on(reader: Reader, tmp_path: Path) -> None:
    def reply(text: str) -> str:
        if text.startswith("13"):
            raise OutOfMemory("no memory\nfor a batch")
        return square(text)

    predictions = run(Scripted(reader, reply), tmp_path)
    assert [p.finish_reason for p in predictions] == ["stop", "stop", "stop", "error", "stop", "stop"]
    assert predictions[3].error == "OutOfMemory: no memory"


def test_errors_are_asked_again_and_answers_are_not(reader: Reader, tmp_path: Path) -> None:
    def failing(text: str) -> str:
        if text.startswith("13"):
            raise OutOfMemory("no memory")
        return square(text)

    run(Scripted(reader, failing), tmp_path)
    second = Scripted(reader, square)
    predictions = run(second, tmp_path)
    assert second.asked == ["13*13="]
    assert [p.answer for p in predictions] == [trace.final_answer for trace in TRACES]


def test_the_file_does_not_depend_on_the_order_of_work(reader: Reader, tmp_path: Path) -> None:
    """Prompts of like length are asked together; the file is in the order of the traces all the same."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    traces = [*TRACES, Trace("short", "1*1=", (), "1")]
    run(Scripted(reader, square), tmp_path / "a", traces)
    run(Scripted(reader, square), tmp_path / "b", traces, replace(GREEDY, batch_size=5))
    assert (tmp_path / "a" / "p.jsonl").read_bytes() == (tmp_path / "b" / "p.jsonl").read_bytes()


def test_an_interrupted_run_keeps_its_answers_and_goes_on(reader: Reader, tmp_path: Path) -> None:
    def reply(text: str) -> str:
        if text.startswith("12"):
            (tmp_path / "stop").touch()
        return square(text)

    with pytest.raises(Interrupted, match="after 4 of 6 answers"):
        run(Scripted(reader, reply), tmp_path)
    assert len([*read_jsonl(tmp_path / "p.jsonl")]) == 4
    second = Scripted(reader, square)
    assert len(run(second, tmp_path)) == 6
    assert second.asked == ["14*14=", "15*15="]


def test_all_failed_or_too_many_failed_is_a_failed_run(reader: Reader, tmp_path: Path) -> None:
    def reply(text: str) -> str:
        if text[:2] in ("10", "11"):
            raise RuntimeError("broken device")
        return square(text)

    assert len(run(Scripted(reader, reply), tmp_path)) == 6
    with pytest.raises(RunError, match=r"2 of 6 predictions failed .* the first: t10: RuntimeError: broken device"):
        run(Scripted(reader, reply), tmp_path, generation=replace(GREEDY, max_error_rate=0.1))
    assert len([*read_jsonl(tmp_path / "p.jsonl")]) == 6
    with pytest.raises(RunError, match="1 of 1 predictions failed"):
        run(Scripted(reader, reply), tmp_path, TRACES[:1], replace(GREEDY, max_error_rate=1.0))


def test_samples_of_a_prompt_have_seeds_of_their_own() -> None:
    seeds = {row_seed(seed, name, sample) for seed in (0, 1) for name in ("a", "b") for sample in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**64 for seed in seeds)
