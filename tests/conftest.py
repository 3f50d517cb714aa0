"""What several stations' tests share: the repository's root, composed configs, and toy-sized overrides."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from tunix_rt.config.load import check, compose
from tunix_rt.config.schema import ExperimentConfig

# A deadline in wall time fails on a busy machine, whatever the code does.
settings.register_profile("busy machine", deadline=None, derandomize=True)
settings.load_profile("busy machine")

ROOT = Path(__file__).resolve().parents[1]

TOY = (
    "training=smoke",
    "schedule.warmup_steps=1",
    "dataset.limit.train=64",
    "dataset.limit.validation=4",
    "dataset.limit.test=4",
    "generation.max_new_tokens=8",
    "hardware=cpu",
    "hardware.threads=1",
    "tracking=none",
)
"""A whole experiment in a second or two."""


UNIT = frozenset(["batches", "config", "evaluation", "inference", "report", "runs", "traces", "training"])
"""Folders of the tier `unit`; the files beside them are in it too."""
FRAMEWORKS = ("jax", "torch", "transformers", "mlflow")
_loaded: list[str] = []
"""Those for which a test has been blamed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the acceptance tests find whole data sets."""
    parser.addoption(
        "--data", default=ROOT / "data" / "raw", help="folder with gsm8k/ and tunix_rt_v2/ (default: data/raw)"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m unit` looks at nothing else."""
    if config.option.markexpr == "unit" and collection_path.is_dir() and collection_path.parent == ROOT / "tests":
        return collection_path.name not in UNIT or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the unit tests. Slow tests first: at the end no worker waits for another's long one."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if not any(item.get_closest_marker(name) for name in ("framework", "slow", "stress", "acceptance")) and (
            folder in UNIT or folder == item.path.name
        ):
            item.add_marker("unit")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _no_framework(request: pytest.FixtureRequest) -> Iterator[None]:
    """In `-m unit`, which a change is tried with every minute: what imports a framework is no unit test."""
    yield
    if request.config.option.markexpr == "unit":
        new = [name for name in FRAMEWORKS if name in sys.modules and name not in _loaded]
        _loaded.extend(new)
        assert not new, f"{', '.join(new)} imported: mark the test `framework`"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def samples() -> Path:
    """Small pieces of real data sets: `tests/data/README.md` says of which."""
    return ROOT / "tests" / "data"


@pytest.fixture(scope="session")
def corpora(request: pytest.FixtureRequest) -> Path:
    """The whole data sets, for the acceptance tests: the folder of `--data`."""
    folder = Path(request.config.getoption("--data")).absolute()
    for name in ("gsm8k/train.jsonl", "gsm8k/test.jsonl", "tunix_rt_v2/traces.jsonl", "tunix_rt_v2/eval.jsonl"):
        file = folder / name
        assert file.is_file(), f"{file} is missing: conf/dataset/{file.parent.name}.yaml says where it comes from"
    return folder


@pytest.fixture(params=["samples", pytest.param("corpora", marks=pytest.mark.acceptance)])
def real_data(request: pytest.FixtureRequest) -> Path:
    """What holds of the samples is tried on the whole sets too, in the acceptance tier."""
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command keeps a URI with a password in this variable, for the processes that it starts; not for other tests."""
    monkeypatch.setenv("TUNIX_RT_TRACKING_URI", "")
    monkeypatch.delenv("TUNIX_RT_TRACKING_URI")


@pytest.fixture(autouse=True)
def _unmeasured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage leaves out the programs that a test starts, and they take a third less time; see the mark `measured`."""
    if request.node.get_closest_marker("measured") is None:
        for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled programs and matplotlib's list of fonts are made once, not once by each of xdist's workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.environ["HF_HUB_OFFLINE"] = "1"
    # jax's programs here run for milliseconds: nearly all their time is compilation, of which this saves half.
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"


def config_of(overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The checked config that overrides declare."""
    return check(compose(list(overrides)))
