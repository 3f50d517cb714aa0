"""`environment.json`: where a run was made: versions, commit, machine, command. Secrets are masked."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from tunix_rt.files import JsonObject, sha256_bytes, sha256_file

PACKAGES = (
    "tunix_rt",
    "numpy",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "torch",
    "transformers",
    "tokenizers",
    "mlflow",
)
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "JAX_PLATFORMS",
    "XLA_FLAGS",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "HF_HUB_OFFLINE",
    "SLURM_JOB_ID",
)
SECRET = re.compile(r"(?i)(^|[_.-])(token|key|password|passwd|secret|credentials?)$")


def mask(text: str) -> str:
    """Text with passwords in URIs and values of secret-looking assignments replaced by `***`."""
    text = re.sub(r"(://[^/:@\s]*):[^/\s]+@", r"\1:***@", text)
    parts = [_mask_assignment(part) for part in re.split(r"(\s+)", text)]
    return "".join(parts)


def _mask_assignment(word: str) -> str:
    name, equals, _ = word.partition("=")
    return f"{name}=***" if equals and SECRET.search(name) else word


def gather(command: Sequence[str], backend: dict[str, str]) -> JsonObject:
    """Everything about the surroundings that may matter; `backend`: what the framework says of itself."""
    return {
        "command": mask(" ".join(command)),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "backend": backend,
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "instruction_set": _instruction_set(),
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "git": _git(),
        "lock_sha256": _lock_hash(),
        "variables": {name: mask(os.environ[name]) for name in VARIABLES if name in os.environ},
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


def _cpuinfo(field: str) -> str:
    file = Path("/proc/cpuinfo")
    text = file.read_text("utf-8", errors="replace") if file.exists() else ""
    found = re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1) if found else platform.processor()


def _processor() -> str:
    return _cpuinfo("model name")


def _instruction_set() -> str:
    return sha256_bytes(f"{platform.machine()} {_cpuinfo('flags')}".encode())[:16]


def _git() -> JsonObject | None:
    """Commit, dirty flag and diff of the repository the command was started in; None where there is none."""
    commit = _run_git("rev-parse", "HEAD")
    if commit is None:
        return None
    diff = _run_git("diff", "HEAD") or ""
    return {"commit": commit, "dirty": bool(_run_git("status", "--porcelain")), "diff": mask(diff)}


def _run_git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def _lock_hash() -> str | None:
    lock = Path("requirements.lock")
    return sha256_file(lock) if lock.exists() else None


def command_line() -> list[str]:
    """The command as it would be typed."""
    program = Path(sys.argv[0])
    words = ["python", "-m", "tunix_rt"] if program.name in ("__main__.py", "-m") else [program.name]
    return [*words, *sys.argv[1:]]
