"""NVIDIA's driver, and whether it is new enough for the CUDA that the wheels bring."""

from __future__ import annotations

import re
import shutil

from tunix_rt.doctor.finding import Finding, Place, output, version
from tunix_rt.hints import install

NAME = "NVIDIA driver"
WHEELS = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime-cu13")
"""Distributions whose version is that of CUDA, of which the frameworks' wheels require one."""
LEAST = {12: 525, 13: 580}
"""CUDA → the oldest driver that it works with (https://docs.nvidia.com/deploy/cuda-compatibility/)."""
OURS = 13
"""The CUDA of our extra."""
SHOWN = re.compile(r"Driver Version:\s*(\S+).*?CUDA Version:\s*(\d+)\.(\d+)", re.S)


def findings(place: Place) -> list[Finding]:
    """One line; a machine without NVIDIA's program has no such driver."""
    if shutil.which("nvidia-smi") is None:
        return [Finding(NAME, "absent", "no nvidia-smi, so no NVIDIA GPU is used")]
    try:
        shown = SHOWN.search(output(["nvidia-smi"], place.seconds))
    except (OSError, RuntimeError) as error:
        return [Finding(NAME, "broken", f"nvidia-smi: {error}", "reinstall the driver, or restart the machine")]
    if shown is None:
        return [Finding(NAME, "broken", "nvidia-smi names no version", "nvidia-smi")]
    driver, cuda = shown[1], int(shown[2])
    brought = next((found for name in WHEELS if (found := version(name))), None)
    wanted = OURS if brought is None else int(brought.partition(".")[0])
    text = f"{driver}, for CUDA up to {cuda}.{shown[3]}"
    if cuda < wanted:
        whose = "the wheels bring" if brought else "the extra jax-cuda needs"
        remedy = f"install a driver ≥ {LEAST.get(wanted, LEAST[OURS])}, or compute without it: hardware=cpu"
        return [Finding(NAME, "broken", f"{text}, but {whose} CUDA {brought or wanted}", remedy)]
    if version(f"jax-cuda{wanted}-plugin") is None:
        return [Finding(NAME, "works", f"{text}; jax has no wheel for it", install("jax-cuda"))]
    return [Finding(NAME, "works", text)]
