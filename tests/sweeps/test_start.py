"""A sweep starts fast: nothing heavy is imported on the way to a mistake; a missing extra is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from tunix_rt.__main__ import main
if {missing!r}:
    from tunix_rt.sweeps import course
    course.find_spec = lambda name: None if name == {missing!r} else name
code = main({words!r})
print([name for name in ("optuna", "ray", "joblib", "submitit", "mlflow", "numpy", "torch") if name in sys.modules])
sys.exit(code)
"""


def python(folder: Path, words: list[str], missing: str = "") -> subprocess.CompletedProcess[str]:
    code = CODE.format(words=words, missing=missing)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def test_nothing_heavy_on_the_way_to_a_mistake(work: Path) -> None:
    done = python(work, ["+experiment=sweep_optuna", "hydra/launcher=joblbi"])
    assert done.returncode == 2
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("experiment", "module"),
    [
        ("sweep_joblib", "hydra_plugins.hydra_joblib_launcher"),
        ("sweep_submitit", "hydra_plugins.hydra_submitit_launcher"),
        ("sweep_ray", "ray"),
        ("sweep_optuna", "optuna"),
    ],
)
def test_a_missing_extra_is_named(experiment: str, module: str, work: Path) -> None:
    done = python(work, [f"+experiment={experiment}"], module)
    extra = experiment.removeprefix("sweep_")
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"needs the extra: pip install 'tunix_rt[{extra}]'")
