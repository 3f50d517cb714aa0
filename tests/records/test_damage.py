"""Files that change on disk: named, made again where that is possible, and never used in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.records.conftest import WORDS, Types
from tunix_rt.files import read_json
from tunix_rt.runs.folder import RunFolder

Change = Callable[[bytes], bytes]


def flipped(data: bytes) -> bytes:
    """The lowest bit of one byte in the middle."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def shorter(data: bytes) -> bytes:
    """Without the last of its lines: still a file of whole lines."""
    return b"".join(data.splitlines(keepends=True)[:-1])


def answered_otherwise(data: bytes) -> bytes:
    return data.replace(b'"final_answer": "2', b'"final_answer": "3')


PREPARED: tuple[tuple[str, Change], ...] = (
    ("encoded/train/tokens.int32", flipped),
    ("encoded/train/weights.float32", flipped),
    ("encoded/validation/index.json", halved),
    ("model/model.safetensors", flipped),
    ("traces/test.jsonl", answered_otherwise),
    ("traces/test.jsonl", shorter),
    ("traces/test.jsonl", halved),
    ("manifest.json", halved),
)


def change(file: Path, how: Change) -> None:
    data = file.read_bytes()
    assert how(data) != data
    file.write_bytes(how(data))


@pytest.mark.parametrize(("name", "how"), PREPARED)
def test_verify_names_what_of_the_prepared_data_changed(
    finished: RunFolder, types: Types, name: str, how: Change
) -> None:
    """Prevents: 'VERIFIED' of a run whose data is no longer what it was trained and tested on."""
    assert types("verify", "last").code == 0
    change(finished.data_folder / name, how)
    done = types("verify", "last")
    assert (done.code, done.out.splitlines()[-1].startswith(f"WRONG {finished.data_folder / name}: ")) == (5, True)


@pytest.mark.slow
def test_damaged_data_is_prepared_again_and_gives_the_same_result(finished: RunFolder, types: Types) -> None:
    """Prevents: another model and other scores from data that changed on disk, with exit code 0."""
    data = finished.data_folder
    good = {file: file.read_bytes() for file in data.rglob("*") if file.is_file()}
    for name, how in PREPARED[:5]:
        change(data / name, how)
    done = types(*WORDS, "run.new=true")
    assert done.code == 0
    assert f"warning: {data / PREPARED[0][0]}: damaged" in done.err, done.err
    assert {file: file.read_bytes() for file in data.rglob("*") if file.is_file()} == good
    again = RunFolder(finished.path.with_name(f"{finished.path.name}-2"))
    for name in ("model/model.safetensors", "predictions.jsonl", "metrics.json"):
        assert (again.path / name).read_bytes() == (finished.path / name).read_bytes(), name
    assert types("verify", "last").code == 0
    data.joinpath("manifest.json").write_text("{")
    assert types("predict", finished.name, "generation.max_new_tokens=2").code == 0
    assert {file: file.read_bytes() for file in data.rglob("*") if file.is_file()} == good


@pytest.mark.parametrize("how", [flipped, halved])
def test_a_damaged_model_is_named_by_whoever_would_use_it(finished: RunFolder, types: Types, how: Change) -> None:
    """Prevents: answers, predictions and archives of weights that training never made."""
    file = finished.model / "model.safetensors"
    change(file, how)
    for words in (
        ("ask", finished.name, "1+1="),
        ("export", finished.name, "all.zip"),
        ("predict", finished.name, "generation.max_new_tokens=2"),
    ):
        done = types(*words)
        assert (done.code, "Traceback" in done.err) == (2, False), words
        assert f"{file}: damaged" in done.err, words
        assert "command" in done.err, "it says what to do"
    done = types("verify", finished.name)
    assert (done.code, done.out.startswith(f"WRONG {file}: damaged")) == (5, True)


def test_a_run_killed_after_training_does_not_go_on_with_a_damaged_model(finished: RunFolder, types: Types) -> None:
    """Prevents: predictions of one bit's difference, recorded as those of the trained model."""
    model, predicted = finished.model / "model.safetensors", finished.predictions
    good = {file: file.read_bytes() for file in (model, predicted)}
    unfinished(finished, "predict", "evaluate", "report")
    predicted.unlink()
    change(model, flipped)
    done = types(*WORDS)
    assert (done.code, "model/model.safetensors: damaged" in done.err) == (0, True), done.err
    assert {file: file.read_bytes() for file in good} == good


def unfinished(run: RunFolder, *stages: str) -> None:
    """As if the run had been stopped before these stages were done."""
    left = {stage: record for stage, record in read_json(run.path / "stages.json").items() if stage not in stages}
    (run.path / "stages.json").write_text(json.dumps(left))


def texts(lines: bytes) -> list[str]:
    return [json.loads(line)["completion"] for line in lines.splitlines()]


@pytest.mark.slow
def test_a_torn_last_line_ends_no_run(finished: RunFolder, types: Types) -> None:
    """Prevents: 'free some space, the same command goes on' being untrue, and a good run called WRONG for good."""
    files = (finished.predictions, finished.baseline_predictions, finished.metrics_log, finished.timings_log)
    good = {file: file.read_bytes() for file in files}
    for file in files:
        file.write_bytes(good[file][:-20])
    unfinished(finished, "predict", "evaluate", "report")
    done = types(*WORDS)
    assert done.code == 0, done.err
    for file in files[:2]:
        assert file.read_bytes().count(b"\n") == 4 and texts(file.read_bytes()) == texts(good[file])
        assert done.err.count(f"/{file.name}:4: a torn line") == 1, done.err
    for file in files[:2]:
        file.write_bytes(good[file])
    first = good[finished.metrics_log].splitlines(keepends=True)
    finished.metrics_log.write_bytes(b"".join([first[0], first[1][:9], b"\n", *first[2:-2], first[-2][:-9]]))
    finished.timings_log.write_bytes(good[finished.timings_log] + b'{"st')
    assert types("verify", "last").out.endswith("VERIFIED last\n")
    done = types("reproduce", "last")
    assert done.code == 0, done.out + done.err


def otherwise(data: bytes) -> bytes:
    """Another loss at step 2."""
    first, second, *rest = data.splitlines(keepends=True)
    return b"".join([first, second.replace(b'"train/loss": ', b'"train/loss": 1'), *rest])


@pytest.mark.parametrize(("name", "how"), [("metrics.jsonl", otherwise), ("report.md", shorter), ("data.json", halved)])
def test_verify_and_export_name_a_result_that_changed(
    finished: RunFolder, types: Types, name: str, how: Change
) -> None:
    """Prevents: 'VERIFIED' of a run with other losses than it had, and an export of it that verifies too."""
    change(finished.path / name, how)
    for command in ("verify", "export"):
        done = types(command, "last")
        assert done.code != 0 and name in done.out + done.err, done


@pytest.mark.parametrize("name", ["data.json", "config.yaml", "environment.json", "status.json"])
@pytest.mark.parametrize("how", [halved, None])
def test_a_damaged_record_of_a_finished_run_is_written_again(
    finished: RunFolder, types: Types, name: str, how: Change | None
) -> None:
    """Prevents: 'finished before', then an error whose advice does not help; a traceback of `ask` and `verify`."""
    file, model = finished.path / name, finished.path / "model" / "model.safetensors"
    written = model.stat().st_mtime_ns
    if how is None:
        file.unlink()
    else:
        change(file, how)
        shown = types("verify", "last" if name != "status.json" else str(finished.path))
        assert shown.code in (2, 5) or name == "environment.json", shown
        assert "Traceback" not in shown.err
    if name == "status.json":
        file.unlink(missing_ok=True)  # as the message says
    assert types(*WORDS).code == 0
    assert types("verify", "last").code == 0
    assert model.stat().st_mtime_ns == written, "nothing was trained again"


@pytest.mark.slow
@pytest.mark.parametrize("checkpoints", [True, False])
def test_stages_json_cut_in_half_is_removed_as_the_message_says(
    finished: RunFolder, types: Types, checkpoints: bool
) -> None:
    """Prevents: advice that leads to another error, or to other results."""
    file, kept = finished.path / "stages.json", ("metrics.jsonl", "predictions.jsonl", "metrics.json", "items.jsonl")
    results = [finished.model / "model.safetensors", *(finished.path / name for name in kept)]
    good = {result: result.read_bytes() for result in results}
    if not checkpoints:
        shutil.rmtree(finished.checkpoints)
    change(file, halved)
    for words in (WORDS, ("verify", "last"), ("ask", "last", "1+1=")):
        done = types(*words)
        assert done.code in (2, 5) and f"{file}: not valid JSON" in done.out + done.err, done
        assert "remove it, and the command that wrote it writes it again" in done.out + done.err
    file.unlink()
    assert types(*WORDS).code == 0
    assert {result: result.read_bytes() for result in results} == good
    assert types("verify", "last").code == 0
