"""`report.html` as a file: nothing in it can become markup, only its own scripts may run, the same files same bytes."""

from __future__ import annotations

import base64
import hashlib
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report.conftest import MakeRun, four, prediction
from tests.report.made import HOSTILE, hostile_run, made_run
from tunix_rt.__main__ import main
from tunix_rt.report.html.curves import MOST_POINTS, thin
from tunix_rt.report.html.embed import SCRIPTS, STYLES, unpacked
from tunix_rt.report.html.page import page, write_page
from tunix_rt.runs.folder import RunFolder

OLDER = Path(__file__).parents[1] / "records" / "version_1"


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text inside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in ("script", "style") and data.strip():
            self.raw.append((*self.found[-1], data))


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    plain, attacked = (Elements(page(run)) for run in (made_run(tmp_path), hostile_run(tmp_path)))
    assert {tag for tag, _ in attacked.found} == {tag for tag, _ in plain.found}
    assert sum(tag == "script" for tag, _ in attacked.found) == len(SCRIPTS) + 4
    for tag, attributes in attacked.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        link = attributes.get("href") or attributes.get("src") or "#"
        assert link.startswith("#") or link == "data:,", link


def test_every_text_arrives_as_it_is(tmp_path: Path) -> None:
    text = page(hostile_run(tmp_path))
    shown = {prompt["id"]: prompt for prompt in unpacked(text, "answers")["prompts"]}
    assert set(shown) == set(HOSTILE)
    for name, prompt in shown.items():
        assert prompt["prompt"] == name and prompt["slices"] == {name: name}
        assert prompt["samples"][0]["completion"] == name
    assert all(character.isprintable() or character in "\n\t" for character in text)


def test_only_what_the_policy_lists_may_run(make_run: MakeRun) -> None:
    """The hashes are those of the very text between the tags, by the standard library alone."""
    found = Elements(page(make_run()))
    (policy,) = [a["content"] or "" for _, a in found.found if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and "unsafe" not in policy and "http" not in policy
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for tag, attributes, text in found.raw:
        if attributes.get("type") != "application/gzip":
            hashes[tag].append(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")
    assert rules["style-src"].split() == hashes["style"] and len(hashes["style"]) == len(STYLES)
    assert rules["script-src"].split()[:-1] == hashes["script"] and len(hashes["script"]) == len(SCRIPTS)


def test_the_same_files_give_the_same_bytes(make_run: MakeRun) -> None:
    run = make_run(baseline=four())
    write_page(run)
    first = run.page.read_bytes()
    write_page(run)
    assert run.page.read_bytes() == first


def test_a_small_run_makes_a_small_file(make_run: MakeRun) -> None:
    assert len(page(make_run())) < 700_000


def test_the_number_and_its_interval_can_be_read_without_scripts(make_run: MakeRun) -> None:
    text = page(make_run(baseline=[prediction(name, "13") for name in ("3*4", "4*3", "2*6", "6*2")]))
    for shown in ("75.0<span", "3 of 4", "30.1 to 95.4 %", "3 answers fixed, 0 broken", "before training", "0.0 %"):
        assert shown in text, shown


@pytest.mark.parametrize("kept", [(), ("items.jsonl",), ("predictions.jsonl",), ("metrics.json",), ("metrics.jsonl",)])
def test_what_is_there_is_shown(tmp_path: Path, kept: tuple[str, ...]) -> None:
    """Prevents: no page of a run that is not finished, or has lost a file."""
    whole, run = made_run(tmp_path, prompts=5), RunFolder(tmp_path / "made" / "partial")
    run.path.mkdir()
    for name in kept:
        shutil.copy(whole.path / name, run.path / name)
    text = page(run)
    assert len(unpacked(text, "answers")["prompts"]) == (5 if {"items.jsonl", "predictions.jsonl"} & set(kept) else 0)
    drawn = {chart["id"] for chart in unpacked(text, "charts")}
    assert ("rates" in drawn, "loss" in drawn) == ("metrics.json" in kept, "metrics.jsonl" in kept)


def test_a_run_of_version_1_has_a_page(tmp_path: Path) -> None:
    """Its verdicts on steps have another name, and its tokens no ends."""
    shutil.copytree(OLDER, tmp_path / "then")
    text = page(RunFolder(tmp_path / "then/runs/older/3ccdbb4928cc"))
    shown = unpacked(text, "answers")["prompts"]
    assert len(shown) == 6 and all(prompt["samples"][0]["completion"] for prompt in shown)
    assert {"rates", "loss", "lengths"} <= {chart["id"] for chart in unpacked(text, "charts")}


def test_all_charts_are_there_with_their_data(tmp_path: Path) -> None:
    charts = {chart["id"]: chart for chart in unpacked(page(made_run(tmp_path, samples=2)), "charts")}
    assert list(charts) == [
        *("rates", "slice carries", "slice digits", "pass_at", "steps", "reliability", "selective"),
        *("faithfulness truncated", "faithfulness corrupted", "lengths"),
        *("loss", "validation", "learning_rate", "speed"),
    ]
    loss = charts["loss"]["spec"]["data"]["values"]
    assert {row["series"] for row in loss} == {"training", "validation", "training, mean of 25"}
    assert sum(row["answers"] for row in charts["lengths"]["spec"]["data"]["values"]) == 80
    assert {row["of"] for row in charts["rates"]["spec"]["data"]["values"]} == {"this run", "before training"}


def test_answers_without_any_reference_are_not_judged(make_run: MakeRun) -> None:
    calls = [prediction(one.id, "<call>", reference="") for one in four()]
    text = page(make_run(calls, baseline=calls))
    assert "No answer has a reference to compare with" in text and "4 prompts have no reference answer" in text
    assert {sample["correct"] for p in unpacked(text, "answers")["prompts"] for sample in p["samples"]} == {None}


def test_secrets_are_masked(make_run: MakeRun) -> None:
    run = make_run()
    run.config.write_text("dataset: {name: 'https://me:hunter2@host/x'}")
    text = page(run)
    assert "https://me:***@host/x" in text and "hunter2" not in text


def test_the_command_leaves_the_run_folder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is in a run folder has its recorded sha256; two runs get a file of their own."""
    left, right = made_run(tmp_path, prompts=3), made_run(tmp_path, prompts=3, name="b" * 12)
    before = sorted(left.path.iterdir())
    assert main(["report", "made/0123", "--root", str(tmp_path)]) == 0
    assert main(["report", "made/0123", "--against", "made/bbb", "--root", str(tmp_path)]) == 0
    assert main(["report", "made/0123", "--out", str(tmp_path / "own.html"), "--root", str(tmp_path)]) == 0
    assert sorted(left.path.iterdir()) == before
    written = [file.name for file in sorted(tmp_path.glob("*.html"))]
    assert written == ["made-0123456789ab-against-bbbbbbbbbbbb.html", "made-0123456789ab.html", "own.html"]
    assert capsys.readouterr().out.count("bytes, for a browser") == 3
    both = (tmp_path / written[0]).read_text("utf-8")
    assert both == page(left, right) and unpacked(both, "answers")["other"] == right.name


def test_a_long_curve_is_thinned_to_means() -> None:
    points = [(step, float(step)) for step in range(1, 2_501)]
    thinned = thin(points)
    assert len(thinned) == 834 <= MOST_POINTS
    assert thinned[0] == (3, 2.0) and thinned[-1] == (2_500, 2_500.0)
    assert thin(points[:MOST_POINTS]) == points[:MOST_POINTS]
