"""predictions.jsonl is always valid, one line per prompt and sample, whatever fails; and it goes on by id."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import config_of
from tests.inference.conftest import Scripted
from tunix_rt.backends.sampling import row_seed
from tunix_rt.batches.reader import Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import Interrupted, OutOfMemory, RunError
from tunix_rt.files import read_jsonl
from tunix_rt.inference.loop import predict
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.traces.layout import Parsed
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
    assert first.logprobs == (round(-0.5 - 2 / 64 - 6 / 1024 - 2 / 4096, 6),) * 11
    assert first.token_ends == tuple(range(1, 12)), "a character each"
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


def test_what_failed_is_asked_again_with_its_batch_and_nothing_else(reader: Reader, tmp_path: Path) -> None:
    def failing(text: str) -> str:
        if text.startswith("13"):
            raise OutOfMemory("no memory")
        return square(text)

    run(Scripted(reader, failing), tmp_path)
    second = Scripted(reader, square)
    predictions = run(second, tmp_path)
    assert second.asked == ["12*12=", "13*13="]
    assert [p.answer for p in predictions] == [trace.final_answer for trace in TRACES]
    assert (tmp_path / "p.jsonl").read_bytes() == whole(reader, tmp_path / "whole")


def test_an_answer_that_cannot_be_read_costs_itself_alone(reader: Reader, tmp_path: Path) -> None:
    """Prevents: a failure after the last piece left the question without a line, and the run without an end."""

    def parse(completion: str) -> Parsed:
        if completion.endswith("144"):
            raise ValueError("a parser's own fault")
        return reader.formatter.parse(completion)

    broken = SimpleNamespace(prompt=reader.formatter.prompt, parse=parse)
    predictions = run(Scripted(replace(reader, formatter=broken), square), tmp_path)  # type: ignore[arg-type]
    assert [p.error for p in predictions[1:5]] == [None, *["ValueError: a parser's own fault"] * 2, None]


class Killed(BaseException):
    """What no handler of the loop sees, as a SIGKILL is none."""


def whole(reader: Reader, folder: Path, generation: GenerationConfig = GREEDY) -> bytes:
    """The file of a run that nobody stopped."""
    folder.mkdir()
    run(Scripted(reader, square), folder, generation=generation)
    return (folder / "p.jsonl").read_bytes()


def killed_at(reader: Reader, folder: Path, number: str, generation: GenerationConfig) -> None:
    """A run that is killed while the question that begins with `number` is answered."""

    def reply(text: str) -> str:
        if text.startswith(number):
            raise Killed
        return square(text)

    with pytest.raises(Killed):
        run(Scripted(reader, reply), folder, generation=generation)


@pytest.mark.parametrize("number", [trace.id[1:] for trace in TRACES])
def test_a_run_killed_inside_a_batch_ends_as_one_that_was_not(reader: Reader, tmp_path: Path, number: str) -> None:
    """Prevents: questions left open by a kill were batched anew, and 80 of 4,058 log-probabilities changed."""
    generation = replace(GREEDY, batch_size=4)
    killed_at(reader, tmp_path, number, generation)
    assert len((tmp_path / "p.jsonl").read_bytes().splitlines()) == int(number) - 10
    second = Scripted(reader, square)
    run(second, tmp_path, generation=generation)
    first_asked = 10 if int(number) < 14 else 14
    assert second.asked == [f"{n}*{n}=" for n in range(first_asked, 16)]
    assert (tmp_path / "p.jsonl").read_bytes() == whole(reader, tmp_path / "whole", generation)


def test_another_batch_size_leaves_answers_alone_and_can_be_repeated(reader: Reader, tmp_path: Path) -> None:
    """Whole batches stay; a run that is given the record of batches makes the very same file."""
    killed_at(reader, tmp_path, "13", GREEDY)
    kept = (tmp_path / "p.jsonl").read_bytes().splitlines()[:2]
    second = Scripted(reader, square)
    run(second, tmp_path, generation=replace(GREEDY, batch_size=3))
    assert second.asked == [f"{n}*{n}=" for n in range(12, 16)]
    file = (tmp_path / "p.jsonl").read_bytes()
    assert file.splitlines()[:2] == kept
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "p.batches.json", tmp_path / "again")
    run(Scripted(reader, square), tmp_path / "again", generation=replace(GREEDY, batch_size=3))
    assert (tmp_path / "again" / "p.jsonl").read_bytes() == file


def test_a_record_of_other_batches_is_not_followed(reader: Reader, tmp_path: Path) -> None:
    """Cut, of other questions, or impossible."""
    expected = whole(reader, tmp_path / "whole")
    good = json.loads((tmp_path / "whole" / "p.batches.json").read_text())
    for bad in ("", "[]", "{}", *(json.dumps(good | change) for change in ({"total": 9}, {"segments": [[1, 2]]}))):
        (tmp_path / "p.batches.json").write_text(bad)
        (tmp_path / "p.jsonl").unlink(missing_ok=True)
        run(Scripted(reader, square), tmp_path)
        assert (tmp_path / "p.jsonl").read_bytes() == expected


@pytest.mark.parametrize("tail", ['{"id": "t12", "sam', '{"id": "t12"}\n', "\0\0\0\0"], ids=["torn", "other", "zeros"])
def test_a_line_that_tore_is_left_out_and_said(
    reader: Reader, tmp_path: Path, tail: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents: after a full disk the same command failed for ever with 'not valid JSON'."""
    killed_at(reader, tmp_path, "12", GREEDY)
    with (tmp_path / "p.jsonl").open("a") as file:
        file.write(tail)
    second = Scripted(reader, square)
    run(second, tmp_path)
    assert second.asked[0] == "12*12="
    assert (tmp_path / "p.jsonl").read_bytes() == whole(reader, tmp_path / "whole")
    assert capsys.readouterr().err.count("p.jsonl:3: ") == 1


def test_the_file_does_not_depend_on_the_order_of_work(reader: Reader, tmp_path: Path) -> None:
    """Prompts of like length are asked together; the file is in the order of the traces all the same."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    traces = [*TRACES, Trace("short", "1*1=", (), "1")]
    first = run(Scripted(reader, square), tmp_path / "a", traces)
    second = run(Scripted(reader, square), tmp_path / "b", traces, replace(GREEDY, batch_size=5))
    assert [p.id for p in first] == [p.id for p in second] == [trace.id for trace in traces]


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
