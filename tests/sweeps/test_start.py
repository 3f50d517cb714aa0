"""A sweep starts fast: nothing heavy is imported on the way to a mistake; a missing extra is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.conftest import Shell
from tunix_rt.sweeps import run

CODE = """
import sys
from tunix_rt.__main__ import main
code = main(["+experiment=sweep_optuna", "hydra/launcher=joblbi"])
print([name for name in ("optuna", "ray", "joblib", "submitit", "mlflow", "pandas", "torch") if name in sys.modules])
sys.exit(code)
"""


def test_nothing_heavy_on_the_way_to_a_mistake(work: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=work, capture_output=True, text=True, check=False)
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
def test_a_missing_extra_is_named(experiment: str, module: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "find_spec", lambda name: None if name == module else name)
    done = shell.types(f"+experiment={experiment}")
    extra = experiment.removeprefix("sweep_")
    assert done.code == 3, done.err
    assert f"needs the extra: pip install 'tunix_rt[{extra}]'; " in done.err.splitlines()[-1]
