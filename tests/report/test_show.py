"""`show`: answers as a person reads them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.report.conftest import MakeRun, four, prediction
from tunix_rt.commands.show import main
from tunix_rt.errors import InputError
from tunix_rt.report import answer_text
from tunix_rt.report.answer_text import lines
from tunix_rt.report.answers import Answer
from tunix_rt.runs.folder import RunFolder

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(make_run: MakeRun) -> RunFolder:
    """A finished run of four prompts; one was asked twice, and a second answer is wrong."""
    again = replace(four()[0], sample=1, answer="14", steps=("3*4=12", "12+1=14"), completion="3*4=12;12+1=14;\n14")
    made = make_run([*four(), again], overrides=["evaluation.slices=[digits]"])
    made.begin()
    made.end("finished")
    return made


def shown(capsys: Capture, *words: str) -> str:
    assert main(["last", *words]) == 0
    return capsys.readouterr().out


def test_wrong_answers_have_each_step_marked(run: RunFolder, capsys: Capture) -> None:
    """Prevents: a line of JSON with 400 characters of log-probabilities where a person looks for a mistake."""
    text = shown(capsys, "--wrong")
    assert text.splitlines() == [
        "quickstart/0123456789ab: 2 of 5 answers are wrong",
        "",
        "✗ 6*2: other text, 9 tokens",
        "  prompt        6*2=",
        "  completion  ✗ 2*6=13;",
        "                13",
        "  answer      ✗ 13",
        "  reference     12",
        "",
        "✗ 3*4, sample 1: other text, 15 tokens",
        "  prompt        3*4=",
        "  completion  ✓ 3*4=12;",
        "              ✗ 12+1=14;",
        "                14",
        "  answer      ✗ 14",
        "  reference     12",
    ]
    assert "2 of 5 answers are wrong; the first 1:" in shown(capsys, "--wrong", "1")
    with pytest.raises(InputError, match="'last' is not a number of answers"):
        main(["--wrong", "last"])


def test_one_prompt_has_all_of_its_samples(run: RunFolder, capsys: Capture) -> None:
    text = shown(capsys, "--id", "3*")
    assert text.startswith("quickstart/0123456789ab: 2 of 2 answers to the prompt 3*4\n\n✓ 3*4: same text")
    assert text.count("prompt   ") == 1 and "✗ 3*4, sample 1: other text" in text
    with pytest.raises(InputError, match=r"no prompt has an id that begins with '9' \(ids are 3\*4"):
        main(["last", "--id", "9"])


def test_an_option_alone_is_not_ignored(run: RunFolder, capsys: Capture) -> None:
    """Prevents: `--tokens` without another option showing the report."""
    assert shown(capsys, "--tokens").startswith("quickstart/0123456789ab: 5 of 5 answers\n\n✓ 3*4")
    for option, reason in (("--id", "expected the id of a prompt"), ("--slice", "expected KEY=VALUE")):
        with pytest.raises(InputError, match=reason):
            main(["last", option, ""])


def test_a_slice_and_its_wrong_answers(run: RunFolder, capsys: Capture) -> None:
    assert "2 of 5 answers with digits=3 are wrong" in shown(capsys, "--slice", "digits=3", "--wrong")
    with pytest.raises(InputError, match="no answer is in the slice digits=4; there are: digits=3"):
        main(["last", "--slice", "digits=4"])


def test_a_program_gets_the_whole_records(run: RunFolder, capsys: Capture) -> None:
    found = json.loads(shown(capsys, "--wrong", "--json"))["predictions"]
    assert [(one["id"], one["sample"], one["correct"], one["step_checks"]["first_wrong"]) for one in found] == [
        ("6*2", 0, False, 0),
        ("3*4", 1, False, 1),
    ]
    assert all({"prompt", "completion", "steps", "logprobs", "reason"} <= one.keys() for one in found)


def test_before_it_is_evaluated_nothing_is_called_wrong(run: RunFolder) -> None:
    run.items.unlink()
    with pytest.raises(InputError, match="not evaluated yet"):
        main(["last", "--wrong"])


def test_tokens_by_their_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """The character that two tokens make belongs to the second; what is likely has no colour."""
    answer = Answer(prediction("a", "é9", (), completion="1é9", logprobs=(-0.01, -3.0, -0.5, -1.5)), {})
    ends = (1, 1, 2, 3)
    monkeypatch.setattr(answer_text, "token_ends", lambda _: ends)
    found = {line.label: line.pieces for line in lines(answer, tokens=True)}
    assert found["completion"] == [("1", ""), ("é", "yellow"), ("9", "bold red")]
    assert found["least sure"] == [("'' 5 %, '9' 22 %, 'é' 61 %, '1' 99 %", "")]


def test_the_report_has_no_pictures_and_whole_commands(run: RunFolder, capsys: Capture) -> None:
    run.report.write_text(
        "# r\n\n![loss](figures/loss.png)\n\ntext\n\n## What to type next\n\n```sh\nx\n```\n", "utf-8"
    )
    text = shown(capsys)
    assert text.startswith("# r\n\ntext\n") and "![" not in text and "```" not in text
    assert "python -m tunix_rt show quickstart/0123456789ab --wrong\n" in text
