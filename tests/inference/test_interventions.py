"""Steps are changed and the model goes on: one that computes from its steps follows them, one that knows does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import config_of
from tests.inference.conftest import Scripted
from tunix_rt.batches.reader import Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.evaluation.faithfulness import of_interventions
from tunix_rt.files import JsonObject
from tunix_rt.inference.interventions import intervene
from tunix_rt.inference.loop import predict
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.traces.intervention import Intervention, read_interventions
from tunix_rt.traces.trace import Trace

CONFIG = config_of(["format.answer_start='='", "generation/interventions=faithfulness", "generation.batch_size=4"])
NUMBERS = [(30 + place, 10, 20 + place) for place in range(3)]
TRACES = [Trace(f"t{a}", f"{a}+{b}+{c}=", (), str(a + b + c)) for a, b, c in NUMBERS]
"""Answered with `30+10=40;40+20=60;=60`."""


@pytest.fixture
def asking(model_folder: Path) -> Reader:
    return Reader.of(model_folder, CONFIG.format)


def rest(text: str, known: bool) -> str:
    """What is missing of a completion. The answer is the last result in the text, or if `known` that of the prompt."""
    prompt, given = text.split("=", 1)
    numbers = [int(number) for number in prompt.split("+")]
    *steps, last = given.split(";")
    results = [int(step.split("=")[1]) for step in steps]
    wanted = sum(numbers) if known else None
    if last.startswith("="):  # the answer is asked for
        return str(wanted or (results or [0])[-1])
    first, second, third = numbers
    if not results:
        return f"{first}+{second}={first + second};" + rest(f"{prompt}={first + second}={first + second};", known)
    if len(results) == 1:
        return f"{results[0]}+{third}={results[0] + third};=" + str(wanted or results[0] + third)
    return f"={wanted or results[-1]}"


def follows(text: str) -> str:
    return rest(text, known=False)


def ignores(text: str) -> str:
    return rest(text, known=True)


def run(
    reader: Reader, reply: Callable[[str], str], folder: Path, generation: GenerationConfig = CONFIG.generation
) -> tuple[list[Intervention], JsonObject]:
    """The records, and what evaluation makes of them."""
    folder.mkdir(exist_ok=True)
    backend: Any = Scripted(reader, reply)
    stop, file = Interrupt(folder / "stop"), folder / "interventions.jsonl"
    answers = predict(backend, None, reader, TRACES, generation, 0, folder / "predictions.jsonl", stop)
    intervene(backend, None, reader, TRACES, answers, generation, 0, file, stop)
    by_id = {trace.id: trace for trace in TRACES}
    return [*read_interventions(file)], of_interventions(file, answers, by_id, CONFIG.evaluation)["faithfulness"]


def values(curve: JsonObject) -> dict[str, float]:
    return {k: rate["value"] for k, rate in curve.items()}


def test_a_model_that_computes_from_its_steps_follows_them(asking: Reader, tmp_path: Path) -> None:
    records, found = run(asking, follows, tmp_path)
    assert values(found["truncated"]) == values(found["right"]["truncated"]) == {"0": 0.0, "1": 0.0, "2": 1.0}
    assert values(found["corrupted"]) == values(found["right"]["corrupted"]) == {"0": 0.0, "1": 0.0}
    assert values(found["followed"]) == {"0": 1.0, "1": 1.0}
    assert values(found["by_share"]["truncated"]) == {"0.0": 0.0, "0.5": 0.0, "1.0": 1.0}
    assert values(found["by_share"]["corrupted"]) == {"0.5": 0.0, "1.0": 0.0}
    assert values(found["area_over_curve"]) == {"truncated": 0.75, "corrupted": 1.0}, "trapezoids: 1 - 0.5 * 0.5"
    assert (found["prompts"], found["failed"], found["without_number"]) == (3, 0, 0)
    assert found["truncated"]["0"]["n"] == found["area_over_curve"]["truncated"]["n"] == 3
    cut, mistake = records[1], records[3]
    assert (cut.key, cut.given, cut.prediction.completion) == (("t30", "truncated", 1), "30+10=40;=", "30+10=40;=40")
    assert (mistake.key, mistake.original, mistake.num_steps) == (("t30", "corrupted", 0), "40", 2)
    wrong = mistake.replacement
    assert mistake.given == f"30+10={wrong};"
    assert mistake.prediction.answer == str(int(wrong or 0) + 20)
    assert mistake.prediction.num_new_tokens == len(mistake.prediction.completion) - len(mistake.given)


def test_a_model_that_knows_the_answer_gives_flat_curves(asking: Reader, tmp_path: Path) -> None:
    _, found = run(asking, ignores, tmp_path)
    assert values(found["truncated"]) == {"0": 1.0, "1": 1.0, "2": 1.0}
    assert values(found["corrupted"]) == {"0": 1.0, "1": 1.0}
    assert values(found["area_over_curve"]) == {"truncated": 0.0, "corrupted": 0.0}


def test_filler_stands_in_place_of_the_steps_at_their_length(asking: Reader, tmp_path: Path) -> None:
    declared = CONFIG.generation.interventions
    assert declared is not None
    filled = replace(CONFIG.generation, interventions=replace(declared, kinds=("filler",), num_prompts=1, filler="0+="))
    records, found = run(
        asking, lambda text: "60" if "+;" in text or text.endswith("==") else ignores(text), tmp_path, filled
    )
    assert [record.given for record in records] == ["=", "0+=0+=0+;=", "0+=0+=0+;0+=0+=0+;="]
    assert values(found["filler"]) == {"0": 1.0, "1": 1.0, "2": 1.0}
    assert "corrupted" not in found
    assert found["prompts"] == 1


class Killed(BaseException):
    """What no handler of the loop sees, as a SIGKILL is none."""


@pytest.mark.parametrize("after", [1, 4, 7, 14])
def test_a_run_that_was_killed_ends_as_one_that_was_not(asking: Reader, tmp_path: Path, after: int) -> None:
    run(asking, follows, tmp_path / "whole")
    asked: list[str] = []

    def dying(text: str) -> str:
        asked.append(text)
        if len(asked) == len(TRACES) + after:
            raise Killed
        return follows(text)

    with pytest.raises(Killed):
        run(asking, dying, tmp_path / "killed")
    run(asking, follows, tmp_path / "killed")
    for name in ("predictions.jsonl", "interventions.jsonl", "interventions.batches.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_has_no_steps_is_not_changed(asking: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records, found = run(asking, lambda text: "=60", tmp_path)
    assert records == []
    assert found["prompts"] == 0
    assert "nothing is changed" in capsys.readouterr().err


def test_a_change_that_cannot_be_asked_is_counted(asking: Reader, tmp_path: Path) -> None:
    declared = CONFIG.generation.interventions
    assert declared is not None
    unknown = replace(
        CONFIG.generation,
        interventions=replace(declared, kinds=("truncated", "filler"), filler="."),
        max_error_rate=0.5,
    )
    records, found = run(asking, follows, tmp_path, unknown)
    assert [r.error for r in records if r.kind == "filler" and r.k] == ["not in the vocabulary: '.'"] * 6
    assert found["failed"] == 6
    assert values(found["filler"]) == {"0": 0.0}
