"""inspect_ai evaluates a served run through its provider for OpenAI-compatible endpoints, as its own command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.conftest import Program
from tunix_rt.files import write_jsonl

pytestmark = [
    pytest.mark.acceptance,
    # What inspect_ai calls deprecated when it reads its log.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import json_dataset
from inspect_ai.scorer import exact
from inspect_ai.solver import generate

@task
def recorded():
    return Task(dataset=json_dataset("asked.jsonl"), solver=generate(), scorer=exact())
"""


def test_an_evaluation(program: Program, tmp_path: Path) -> None:
    """Every answer is the recorded one: what is asked for exactly is found exactly."""
    pytest.importorskip("inspect_ai")
    from inspect_ai.log import read_eval_log

    recorded = program.predictions()
    asked = ({"input": one["prompt"], "target": one["completion"]} for one in recorded)
    write_jsonl(tmp_path / "asked.jsonl", asked)
    (tmp_path / "task.py").write_text(TASK, "utf-8")
    command = [str(Path(sys.executable).with_name("inspect")), "eval", "task.py", "--epochs", "2", "--display", "none"]
    command += ["--model", "openai-api/local/quickstart", "--log-dir", "logs"]
    variables = os.environ | {"LOCAL_API_KEY": "none", "LOCAL_BASE_URL": f"{program.url}/v1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "logs").iterdir()
    log = read_eval_log(str(file))
    assert log.status == "success", log.error
    assert log.samples is not None and len(log.samples) == 2 * len(recorded)
    by_prompt = {one["prompt"]: one["completion"] for one in recorded}
    assert all(one.output.completion == by_prompt[str(one.input)] for one in log.samples)
