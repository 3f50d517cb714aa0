"""Which processor this is: what compiled programs and measured rates depend on. Framework-free."""

from __future__ import annotations

import platform
from pathlib import Path

from tunix_rt.files import sha256_bytes


def processor_name() -> str:
    """Model of the processor, and a digest of it with its architecture and instruction sets, where they are known."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = [f"model name: {platform.processor()}"]
    told = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    facts = (platform.machine(), *sorted(told))
    model = next((fact.partition(":")[2].strip() for fact in facts if fact.startswith("model name")), facts[0])
    return f"{model} ({sha256_bytes(repr(facts).encode())[:8]})"
