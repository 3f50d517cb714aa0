"""A working directory with a model that has learned nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import TOY, config_of
from tunix_rt.inputs import write_prepared


@pytest.fixture(scope="session")
def fresh_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_prepared(config_of(TOY), folder, None)
    return folder / "model"


@pytest.fixture
def place(work: Path, fresh_model: Path) -> Path:
    """The working directory; the model is in `base`."""
    shutil.copytree(fresh_model, work / "base")
    return work
