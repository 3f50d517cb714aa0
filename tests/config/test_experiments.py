"""Every experiment file: its header, and its resolved config as a golden file, so that a changed default shows.

`python -m tests.config.test_experiments` writes the golden files anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, config_of
from tunix_rt.commands.experiments import header
from tunix_rt.config.identity import plain

EXPERIMENTS = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("[!_]*.yaml"))
GOLDEN = ROOT / "tests" / "golden" / "configs"


def resolved(name: str) -> str:
    return yaml.safe_dump(plain(config_of([f"+experiment={name}"])), sort_keys=False)


def test_there_are_experiments() -> None:
    assert "quickstart" in EXPERIMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_resolved_config_is_the_golden_one(name: str) -> None:
    assert resolved(name) == (GOLDEN / f"{name}.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_opens_with_command_time_and_result(name: str) -> None:
    text = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text("utf-8")
    what, time = header(text)
    assert what
    assert time
    assert f"# command: python -m tunix_rt +experiment={name}" in text
    assert "# result: " in text


def test_the_plain_config_is_the_quickstart() -> None:
    assert config_of() == config_of(["+experiment=quickstart"])


def test_no_golden_file_outlives_its_experiment() -> None:
    assert sorted(file.stem for file in Path(GOLDEN).glob("*.yaml")) == EXPERIMENTS


if __name__ == "__main__":
    for experiment in EXPERIMENTS:
        (GOLDEN / f"{experiment}.yaml").write_text(resolved(experiment), "utf-8")
