"""`report.md`: its numbers, and that foreign text stays text. Read by a real Markdown parser."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from matplotlib import image

from tests.report.conftest import MakeRun, four, prediction
from tunix_rt.files import read_json, read_jsonl, write_json, write_jsonl
from tunix_rt.report.blocks import block, code, table
from tunix_rt.report.figures import draw
from tunix_rt.report.markdown import write_report
from tunix_rt.report.tables import write_tables
from tunix_rt.runs.folder import RunFolder

HOSTILE = [
    "```\n# Broken out\n```",
    "````sh\n~~~",
    "a | b | c\n| --- |",
    "<script>alert(1)</script>",
    "![x](http://x)",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe\u200b",
    "`",
    "x`",
    " ``` ` ",
    "\r# Heading\r\n",
    "\ud83d",
    "back\\slash \\| bar",
    "&lt;&amp;",
    "",
]


def parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


def headings(text: str) -> list[str]:
    tokens = parsed(text)
    return [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]


def report_of(run: RunFolder, ui_command: str | None = None) -> str:
    write_report(run.path, ui_command)
    return run.report.read_text("utf-8")


def cells(text: str) -> dict[str, list[str]]:
    """First cell of each table row → the others."""
    rows = [line.strip("| ").split(" | ") for line in text.split("\n") if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_the_numbers_are_there(make_run: MakeRun) -> None:
    run = make_run(baseline=[prediction(p.id, None, (), finish_reason="length", num_new_tokens=80) for p in four()])
    text = report_of(run)
    rows = cells(text)
    assert headings(text)[0] == "quickstart/0123456789ab"
    assert "**75.0 % of the answers are right** on the test split, 0.0 % before training" in text
    assert rows["right answers"] == ["0.0 % [0.0, 49.0], 0 of 4", "75.0 % [30.1, 95.4], 3 of 4"]
    assert rows["malformed"][0].endswith("4 of 4") and rows["stopped by itself"][1].endswith("4 of 4")
    assert rows["tokens per completion, max"] == ["80", "15"]
    assert rows["training loss"] == ["3 (step 1) → 0.0002055 (step 60)"]
    assert rows["validation loss"] == ["0.02963 (step 30) → 0.0002261 (step 60)"]
    assert rows["tokens"] == ["66,000 in 2.0 s: 33,000 a second"] and rows["weights of step"] == ["40"]
    assert rows["of those with the right answer, a step wrong"][0].endswith("1 of 3")
    assert rows["first wrong step"] == ["step 1: 2"]
    assert rows["seed"] == ["`seed=0`"] and "`backend.name=jax`" in rows["backend"][0]
    assert "`model.source.kind=fresh`" in rows["model"][0] and "`dataset.name=multiply_2x2`" in rows["data"][0]


def test_what_was_left_out_and_by_which_switch(make_run: MakeRun) -> None:
    """Prevents: data that vanish without a word."""
    rows = cells(report_of(make_run()))
    assert rows["not a valid trace"] == ["5", "`dataset.on_invalid=skip`"]
    assert rows["prompt occurs twice"] == ["3", "`dataset.on_duplicate=first`"]
    assert rows["too many tokens"] == ["7", "`dataset.on_overlong=drop`"]
    assert rows["shared with evaluation, but kept"] == ["2", "`dataset.on_overlap=allow`"]
    assert "no token to learn" not in rows
    assert rows["train"] == ["100", "7,000", "6,400", "`19e9c959f6a9`"]


def test_right_and_wrong_predictions_are_shown(make_run: MakeRun) -> None:
    titles = headings(report_of(make_run()))
    assert [title for title in titles if title.startswith(("Right", "Wrong"))] == [
        "Wrong: `6*2`", "Right: `3*4`", "Right: `4*3`", "Right: `2*6`",
    ]  # fmt: skip
    many = [prediction(f"r{n}", "12") for n in range(9)] + [prediction(f"w{n}", "13") for n in range(9)]
    shown = [title[:5] for title in headings(report_of(make_run(many, identity="many"))) if ": `" in title]
    assert shown == ["Wrong", "Wrong", "Wrong", "Right", "Right"]
    wrong = report_of(make_run([prediction(f"w{n}", "13") for n in range(9)], identity="wrong"))
    assert sum(": `" in title for title in headings(wrong)) == 5


def test_items_of_older_runs_are_read(make_run: MakeRun) -> None:
    """Their verdicts on the steps were called `steps`, as the texts are elsewhere."""
    run = make_run()
    assert all("step_checks" in item and "steps" not in item for _, item in read_jsonl(run.items))
    now = report_of(run)
    older = [item | {"steps": item["step_checks"]} for _, item in read_jsonl(run.items)]
    write_jsonl(run.items, [{key: item[key] for key in item if key != "step_checks"} for item in older])
    assert "steps ✓ ✓" in now
    assert report_of(run) == now


def test_a_rate_that_nobody_listed_is_in_the_report(make_run: MakeRun) -> None:
    """Prevents: a scorer whose rate is in `metrics.json` and nowhere a person looks."""
    run = make_run()
    half = {"value": 0.5, "k": 2, "n": 4, "low": 0.15, "high": 0.85}
    write_json(run.metrics, read_json(run.metrics) | {"polite_rate": half})
    assert cells(report_of(run))["polite"] == ["50.0 % [15.0, 85.0], 2 of 4"]
    write_tables(run.path)
    assert "polite_rate,trained,0.5,0.15,0.85" in (run.path / "plots" / "accuracy.csv").read_text("utf-8")


def test_samples_votes_and_slices(make_run: MakeRun) -> None:
    samples = [prediction(f"{n}*6", answer, sample=k) for n in range(3) for k, answer in enumerate(("12", "12", "7"))]
    sampling = ["generation=sample", "generation.num_return_sequences=3"]
    run = make_run(samples, overrides=[*sampling, "evaluation.pass_at=[1,2]", "evaluation.slices=[digits]"])
    rows = cells(report_of(run))
    assert rows["right by majority vote"][0].endswith("3 of 3")
    assert rows["pass@1"][0].startswith("66.7 %") and rows["pass@2"][0].startswith("100.0 %")
    assert rows["meta key `digits`"] == ["right answers"] and rows["`3`"][0].endswith("6 of 9")


def test_how_sure_the_model_was_is_beside_how_often_it_is_right(make_run: MakeRun) -> None:
    made = [prediction(f"{n}*6", "12", (), logprobs=(-0.1, 0.0), token_ends=(1, 2)) for n in range(3)]
    text = report_of(make_run([*made, prediction("6*6", "13", (), logprobs=(-2.0, 0.0), token_ends=(1, 2))]))
    rows = cells(text)
    assert rows["0.9 to 1.0"][0] == "0.905" and rows["0.9 to 1.0"][1].endswith("3 of 3")
    assert rows["0.1 to 0.2"][1].endswith("0 of 1") and rows["75 %"][0] == "0.905"
    assert "Expected calibration error 0.105, Brier score 0.011, n = 4." in text


def test_the_majority_beside_the_greedy_answer(make_run: MakeRun) -> None:
    run = make_run()
    pairs = {"n": 8, "gained": 6, "lost": 1, "difference": 0.625, "p_value": 0.125}
    write_json(run.metrics, read_json(run.metrics) | {"majority_against_greedy": pairs})
    said = "On 6 of 8 prompts only the majority is right, on 1 only the greedy answer (exact McNemar test: p = 0.12)."
    assert said in report_of(run)


def test_commands_can_be_pasted(make_run: MakeRun) -> None:
    text = report_of(make_run(overrides=["run.root=other runs"]), "mlflow ui --port 5000")
    assert "python -m tunix_rt ask quickstart/0123456789ab '3*4=' --root 'other runs'\n" in text
    assert "See it in the tracker:\n\n```sh\nmlflow ui --port 5000\n" in text
    assert "tracker" not in report_of(make_run(identity="none")).split("What to type")[1]
    odd = report_of(make_run([prediction("-1\n", "12"), prediction("it's", "12")], identity="odd"))
    assert """ask quickstart/odd 'it'"'"'s='\n""" in odd


def test_pictures_are_linked_where_there_are_some(make_run: MakeRun) -> None:
    """Prevents: a link to nothing, and an empty picture."""
    run = make_run()
    assert "](figures/" not in report_of(run)
    drawn = draw(run.path)
    linked = re.findall(r"!\[\w+\]\((figures/\w+\.png)\)", report_of(run))
    assert sorted(run.path / link for link in linked) == sorted(drawn) and len(drawn) == 4
    for path in drawn:
        picture = image.imread(path)[..., :3]
        inked = (abs(picture - picture[0, 0]) > 0.1).any(axis=-1)
        assert picture.shape[1] >= 800 and 0.01 < inked.mean() < 0.6, path


def test_missing_files_are_left_out_and_the_text_is_reproducible(make_run: MakeRun) -> None:
    """Prevents: a failed run without a report, and clock values in it."""
    run = make_run()
    assert report_of(run) == report_of(run)
    for file in (run.items, run.data, run.environment, run.metrics_log, run.predictions, run.metrics, run.config):
        file.unlink()
        titles = headings(report_of(run))
    assert titles == ["quickstart/0123456789ab", "Training", "What to type next"]
    write_json(run.path / "stages.json", {})
    assert headings(report_of(run)) == ["quickstart/0123456789ab", "What to type next"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_predictions_cannot_break_out(make_run: MakeRun, text: str) -> None:
    """Prevents: a completion that becomes a heading, a picture, HTML, or a sequence that steers the terminal."""
    calm, id_ = headings(report_of(make_run())), text.encode("utf-8", "replace").decode() or "empty"
    harmless = [prediction(p.id, p.answer, p.steps) for p in four()[:3]]
    # A file cannot hold half a surrogate pair, JSON can spell it; `write_jsonl` refuses it, so it is replaced.
    content = text.encode("utf-8", "replace").decode()
    hostile = prediction(id_, content or None, [content], prompt=content or "?", completion=content)
    report = report_of(make_run([*harmless, hostile], identity="hostile"))
    found = headings(report)
    others = [[title for title in titles[1:] if not title.startswith("Wrong: ")] for titles in (found, calm)]
    assert others[0] == others[1] and len(found) == len(calm)
    assert not [token for token in parsed(report) if token.type == "html_block"]
    inside = [child.type for token in parsed(report) for child in token.children or []]
    assert "image" not in inside and "html_inline" not in inside and "link_open" in inside
    assert all(character.isprintable() or character == "\n" for character in report)


@given(st.text() | st.sampled_from(HOSTILE))
def test_code_and_blocks_hold_any_text(text: str) -> None:
    """Prevents: backticks, bars or line ends in foreign text that end its code or its table cell."""
    (fence,) = parsed("\n".join(block(text)))
    assert fence.type == "fence" and fence.info == "text"
    rows = [token for token in parsed("\n".join(table(["a", "b"], [[code(text), "end"]]))) if token.type == "inline"]
    assert [row.content for row in rows[:2]] == ["a", "b"] and rows[3].content == "end" and len(rows) == 4
    assert [child.type for child in rows[2].children or []] in (["code_inline"], ["text"])


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=40))
def test_code_shows_exactly_the_text(text: str) -> None:
    (child,) = parsed(code(text))[1].children or []
    assert (child.type, child.content) == ("code_inline", text)


def test_long_text_is_cut_and_says_so() -> None:
    assert "7,000 more characters" in "\n".join(block("x" * 9_000))
    assert len(code("x" * 9_000)) < 300
