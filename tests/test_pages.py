"""What README.md and docs/ tell a person to type: parsed, composed, and where it takes a moment, run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from tests.conftest import ROOT, TOY, config_of
from tests.pages import PAGES, Typed, experiments, typed, understood
from tunix_rt import __main__ as command_line
from tunix_rt.config.choices import Adapter, ReaderName
from tunix_rt.config.dataset import DatasetConfig
from tunix_rt.traces.data_files import read_records
from tunix_rt.traces.look import look

COMMANDS = tuple(dict.fromkeys(typed()))
RUN = {
    "first-run.md": "ask experiments options rows runs show traces predict evaluate".split(),
    "records.md": "runs diff reproduce export verify data".split(),
    "dvc.md": ["data"],
    "completion.md": ["completion"],
}
"""Commands of a page that are run on a small experiment; the others train a large model, or need a server."""

OTHERS = re.compile("quickstart/|sweep-")
"""Runs and sweeps that the small experiment does not leave."""


@pytest.fixture
def place(work: Path) -> Path:
    """An empty folder in which the experiments that the pages quote are declared."""
    experiments(work)
    return work


def test_every_page_has_commands() -> None:
    """Prevents: a pattern that finds nothing any more."""
    silent = {page.name for page in PAGES} - {command.page for command in COMMANDS}
    assert silent <= {"index.md", "metrics.md", "architecture.md"}
    assert len(COMMANDS) > 80


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_understood(command: Typed, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: a page that teaches an option that was renamed."""
    understood(command, monkeypatch)


@pytest.mark.slow
def test_the_commands_of_the_pages_work_one_after_another(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = [
        *TOY,
        "backend=torch",
        "training.max_steps=100",
        "training.evaluate_every=null",
        "training.evaluate_samples=0",
    ]
    assert command_line.main(["+experiment=quickstart", *toy]) == 0
    for command in COMMANDS:
        words = list(command.words[command.words.index("tunix_rt") + 1 :]) if "tunix_rt" in command.words else []
        if words and words[0] in RUN.get(command.page, ()) and not OTHERS.search(str(command)):
            archives = sorted(place.glob("runs/*.zip"))
            words = [str(archives[0]) if word.endswith(".zip") else word for word in words]
            code = command_line.main([*words, *(["model=nano"] if words[0] == "traces" else [])])
            assert code == 0, f"{command}\n{capsys.readouterr().err}"


def test_the_page_of_data_names_every_shape_reader_and_check() -> None:
    text = (ROOT / "docs" / "own-data.md").read_text("utf-8")
    names = [*get_args(Adapter), *get_args(ReaderName)]
    names += [f"dataset.{field}" for field in DatasetConfig.__dataclass_fields__ if field.startswith("on_")]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_what_init_is_quoted_to_say_is_what_the_file_holds() -> None:
    """The file of the README's two commands; lengths in tokens need a model, so they are those of a day."""
    found = look({"train": read_records(ROOT / "tests" / "data" / "gsm8k" / "train.jsonl")}, {})
    for page in (ROOT / "README.md", ROOT / "docs" / "own-data.md"):
        quoted = dict(
            re.findall(r"^ (shape|records|messages|calculator .* out)  +(.*)$", page.read_text("utf-8"), re.M)
        )
        assert (quoted["shape"], quoted["records"]) == (found.adapter, str(found.rows))
    assert quoted["calculator annotations left out"] == str(found.rules.noted["calculator annotations left out"])


def test_the_mixture_of_the_page_composes_where_the_page_puts_it(place: Path) -> None:
    source = config_of(["+experiment=both"]).dataset.source
    assert source.kind == "mixture" and list(source.sources) == ["maths", "talk"]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Prevents: a link to a page or a heading that is gone."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "docs/site/mkdocs.yml", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "learning_rate" in (tmp_path / "config" / "index.html").read_text("utf-8")


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGES[0].read_text("utf-8"))
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []
