"""The commands of README.md and docs/: where they stand, and whether the program that each calls understands it."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, config_of
from tunix_rt import __main__ as command_line
from tunix_rt.commands import Parser, run
from tunix_rt.config.folders import config_folders
from tunix_rt.config.overrides import check_overrides
from tunix_rt.tracking.store import IN_RUN
from tunix_rt.tracking.stores._mlflow_uri import ui_command
from tunix_rt.tracking.stores.tensorboard import TensorBoardStore
from tunix_rt.tracking.stores.wandb import WandbStore

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:uv run |python -m |tests/acceptance/run|\.ci/)[^`\n]*)`")
NAMES = {"RUN": "last", "FOLDER": "folder", "NAME": "mine", "COMMIT": "0" * 40, "PREFIX": "training", "KEY": "seed"}
"""What a page writes for something of the reader's → an example of it."""

TRAINED = ("training=none", "model=gpt2", "tokenizer=pretrained")
"""How `predict` opens the model of a run."""


@dataclass(frozen=True, slots=True)
class Typed:
    """One command of a page."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def typed() -> Iterator[Typed]:
    """Every command of every page, without comments, prompts, and what only says in which environment it runs."""
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = [line for language, block in FENCED.findall(text) for line in _commands(language, block)]
        for line in [*lines, *INLINE.findall(FENCED.sub("", text))]:
            for part in re.split(r"\s&&\s", line):
                words = shlex.split(part.partition(" > ")[0], comments=True)
                yield Typed(page.name, tuple(map(_example, words)))


def _commands(language: str, block: str) -> list[str]:
    block = block.replace("\\\n", " ")
    if language == "bash":
        return [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def _example(word: str) -> str:
    word = word[1:-1] if re.fullmatch(r"\[.*\]", word) else word
    return re.sub(r"\b(?:RUN|FOLDER|NAME|COMMIT|PREFIX|KEY)\b", lambda found: NAMES[found[0]], word)


def understood(command: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail unless the program that a command calls understands it. Nothing is run."""
    words = list(command.words)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        del words[0]
    if words[0] == "uv":
        words = _of_uv(words)
    if words and words[0] == "../three/bin/python":
        words[0] = "python"
    if words:
        PROGRAMS[words[0]](words[1:], monkeypatch)


def _of_uv(words: list[str]) -> list[str]:
    """Check the options of `uv run` or `uv sync`; what is left is the program that `uv run` starts."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert words[1] in ("run", "sync"), words
    rest = words[2:]
    while rest and rest[0].startswith("-"):
        if rest[0] == "--extra":
            assert rest[1] in declared["project"]["optional-dependencies"], words
            del rest[0]
        else:
            assert rest[0] in ("--no-dev", "--no-sync", "--inexact"), words
        del rest[0]
    assert bool(rest) == (words[1] == "run"), words
    return rest


def _python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words[0] == "-m", words
    if words[1] == "tunix_rt":
        of_tunix_rt(words[2:], monkeypatch)
    else:
        assert importlib.util.find_spec(words[1]) is not None, words


def _torchrun(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own options are torch's."""
    _python(words[words.index("-m") :], monkeypatch)


class Parsed(Exception):
    """The words of a command were understood."""


def of_tunix_rt(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse the words as the command would, and compose the overrides among them."""
    if words and words[0] in command_line.commands() and words[0] != "run":
        overrides = parsed(words, monkeypatch)
    else:
        _, overrides, chosen = run._parsed([word for word in words if word not in ("run", "--dry-run", "--help")])
        assert chosen is not None
    mistakes, kept = check_overrides(overrides, config_folders())
    assert mistakes == [], words
    if not overrides:
        return
    first = [re.sub(r"=([^,(\[{]*),.*$", r"=\1", word) for word in kept]  # of a sweep's values
    single = [word for word in first if not re.search(r"=(.*,.*|glob\(.*)$", word) or "[" in word]
    trained = TRAINED if words[0] == "predict" else ()
    config_of([*trained, *(word for word in single if not word.startswith("model.source="))])


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The overrides among the words of a command, which its own parser has understood."""
    found: list[str] = []

    def parse(parser: Parser, arguments: list[str]) -> None:
        chosen, unknown = parser.parse_known_intermixed_args(arguments)
        assert unknown == [], words
        found.extend(getattr(chosen, "overrides", None) or [])
        raise Parsed

    module = importlib.import_module(f"tunix_rt.commands.{words[0]}")
    with monkeypatch.context() as patched, pytest.raises(Parsed):
        patched.setattr(Parser, "parse", parse)
        module.main(words[1:])
    return found


def _dvc(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.cli.parser import get_main_parser

    chosen = get_main_parser().parse_args(words)
    for text in getattr(chosen, "set_param", None) or []:
        config_of([word for word in [text] if "," not in word])


def _mlflow(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what a run itself prints; MLflow's own parser takes ten seconds to import."""
    assert ui_command("sqlite:///mlflow.db").endswith(shlex.join(words)), words


def _tensorboard(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what a run itself prints."""
    assert TensorBoardStore.ui_command(words[-1], Path()).endswith(shlex.join(words)), words


def _wandb(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what a run itself prints."""
    assert words[0] == "sync"
    assert WandbStore.ui_command(IN_RUN, Path("RUN")).endswith(f"RUN/{'/'.join(Path(words[1]).parts[-2:])}")


def _pytest(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]["markers"]
    if "-m" in words:
        assert words[words.index("-m") + 1] in {marker.partition(":")[0] for marker in declared}


def _file(name: str) -> Callable[[list[str], pytest.MonkeyPatch], None]:
    def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        assert (ROOT / name).stat().st_mode & 0o100, f"{name} is no program"

    return check


def _mkdocs(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words[0] in ("build", "serve")
    assert (ROOT / words[words.index("-f") + 1]).is_file()


def _pip(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words == ["install", "-q", "uv"]


def _curl(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path is one that is served, and its body one that is accepted."""
    from tunix_rt.serving.requests import CompletionRequest

    assert words[0].endswith("/v1/completions")
    CompletionRequest.model_validate_json(words[words.index("-d") + 1])


def _installed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of the group `clients`; what is typed is tried in tests/serving."""


PROGRAMS: dict[str, Callable[[list[str], pytest.MonkeyPatch], None]] = {
    "python": _python,
    "torchrun": _torchrun,
    "dvc": _dvc,
    "mlflow": _mlflow,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "pytest": _pytest,
    "mkdocs": _mkdocs,
    "pip": _pip,
    "curl": _curl,
    "lm_eval": _installed,
    "inspect": _installed,
    "tests/acceptance/run": _file("tests/acceptance/run"),
    ".ci/run": _file(".ci/run"),
    ".ci/coverage": _file(".ci/coverage"),
    ".ci/tunix": _file(".ci/tunix"),
    ".ci/light": _file(".ci/light"),
}
"""A program that is not here fails the test: nobody would know whether its command is right."""


def experiments(folder: Path) -> None:
    """Write the experiments that the pages quote into `conf/experiment` of a folder."""
    place = folder / "conf" / "experiment"
    place.mkdir(parents=True, exist_ok=True)
    texts = [(ROOT / "docs" / name).read_text("utf-8") for name in ("own-data.md", "stages.md")]
    blocks = [block for text in texts for _, block in FENCED.findall(text) if "# @package _global_" in block]
    for block in blocks:
        (name,) = re.findall(r"^name: (\w+)$", block, re.MULTILINE)
        (place / f"{name}.yaml").write_text(block[block.index("# @package") :], "utf-8")
