"""`environment.json`, where a run was made: versions, commit, machine, command. No secrets."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from tunix_rt.files import JsonObject, digest, sha256_bytes, sha256_file
from tunix_rt.machine import usable_cores, usable_memory
from tunix_rt.runs.secrets import mask, mask_variables, mask_words

PACKAGES = """
    tunix_rt numpy jax jaxlib flax optax google-tunix torch transformers tokenizers mlflow
    safetensors ml-dtypes huggingface-hub hydra-core omegaconf pydantic scipy datasets gguf
""".split()
VARIABLES = re.compile(
    r"(CUDA|CUBLAS|NVIDIA|NCCL|JAX|XLA|LIBTPU|TPU|TORCH|PYTORCH|OMP|KMP|MKL|OPENBLAS|GOMP|MALLOC|HF|TRANSFORMERS"
    r"|TOKENIZERS|MLFLOW|SLURM|TUNIX_RT|PYTHON)[A-Z_]*_.*|LD_PRELOAD|PYTHONHASHSEED|PYTHONPATH|XDG_CACHE_HOME"
)
"""Names of variables that may change numbers, devices or output paths; values of secret ones are masked."""
UNTRACKED = 200
"""Untracked files whose hash is recorded; the others are counted."""
LONGEST_DIFF = 2**16
"""Characters of the diff to the commit that are recorded."""
LARGEST = 2**24
"""Largest untracked file that is hashed, in bytes; for a larger one the size is recorded, so that a start is quick."""


def gather(command: Sequence[str], backend: dict[str, str]) -> JsonObject:
    """Everything about the environment that may matter; `backend`: what the framework reports about itself."""
    locks = [folder / "requirements.lock" for folder in (Path.cwd(), Path(__file__).parents[2])]
    installed = {(str(item.metadata["Name"]).lower(), item.version) for item in importlib.metadata.distributions()}
    return {
        "command": " ".join(mask_words(command)),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "installed_sha256": digest(sorted(installed)),
        "backend": backend,
        "machine": {
            "system": platform.platform(),
            "processor": _cpuinfo("model name"),
            "instruction_set": _instruction_set(),
            "cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "memory_bytes": psutil.virtual_memory().total,
            "usable_memory_bytes": usable_memory(),
            "accelerators": _accelerators(),
        },
        "git": _git(Path.cwd()) or _git(Path(__file__).parent),
        "lock_sha256": next((sha256_file(lock) for lock in locks if lock.exists()), None),
        "variables": mask_variables({k: v for k, v in sorted(os.environ.items()) if VARIABLES.fullmatch(k)}),
    }


def fingerprint(backend: dict[str, str]) -> str:
    """What must agree for bit-identical numbers: framework and versions, device, threads, instruction set."""
    parts = [_instruction_set(), *(f"{key}={value}" for key, value in sorted(backend.items()))]
    return sha256_bytes("\n".join(parts).encode())[:16]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _accelerators() -> list[str]:
    """`name, memory, driver` of each NVIDIA device of the machine, and the device files of TPUs."""
    query = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    shown = _output("nvidia-smi", *query) if shutil.which("nvidia-smi") else None
    return [*(shown or "").splitlines(), *sorted(str(file) for file in Path("/dev").glob("accel[0-9]*"))]


def _cpuinfo(field: str) -> str:
    file = Path("/proc/cpuinfo")
    text = file.read_text("utf-8", errors="replace") if file.exists() else ""
    found = re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1) if found else platform.processor()


def _instruction_set() -> str:
    return sha256_bytes(f"{platform.machine()} {_cpuinfo('flags')}".encode())[:16]


def _git(folder: Path) -> JsonObject | None:
    """Commit, dirty flag and what differs from the commit; None if the folder is in no repository."""
    root = _output("git", "-C", str(folder), "rev-parse", "--show-toplevel")
    commit = _output("git", "-C", str(folder), "rev-parse", "HEAD") if root else None
    if root is None or commit is None:
        return None
    diff = _output("git", "-C", root, "diff", "HEAD") or ""
    names = (_output("git", "-C", root, "ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    untracked = [name for name in names if name and (Path(root) / name).is_file()]
    return {
        "commit": commit,
        "dirty": bool(diff or untracked),
        "diff": _bounded(mask(diff)),
        "diff_sha256": sha256_bytes(diff.encode()),
        "untracked": {name: _hash_or_size(Path(root) / name) for name in untracked[:UNTRACKED]},
        "num_untracked": len(untracked),
    }


def _bounded(diff: str) -> str:
    """Enough to see what was changed; `diff_sha256` says whether two are the same."""
    left = len(diff) - LONGEST_DIFF
    return diff if left <= 0 else f"{diff[:LONGEST_DIFF]}\n… {left:,} more characters, which are not recorded\n"


def _hash_or_size(file: Path) -> str:
    size = file.stat().st_size
    return sha256_file(file) if size <= LARGEST else f"{size} bytes"


def _output(*words: str) -> str | None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def command_line() -> list[str]:
    """The command as it would be typed."""
    program = Path(sys.argv[0])
    words = ["python", "-m", "tunix_rt"] if program.name in ("__main__.py", "-m") else [program.name]
    return [*words, *sys.argv[1:]]
