"""Does each framework import, and which devices does it see? Each in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tunix_rt.config.choices import BACKENDS
from tunix_rt.doctor.finding import Finding, Place, installed, output, version
from tunix_rt.hints import install

JAX = "import jax; found = jax.__version__, [d.device_kind for d in jax.devices()]"
TORCH = (
    "import torch; gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())];"
    "gpus += ['mps'] * torch.backends.mps.is_available(); found = torch.__version__, gpus or ['cpu']"
)
PROBES = {"jax": JAX, "torch": TORCH, "tunix": JAX}
"""Backend → what a process of its own finds."""
DISTRIBUTIONS = {"tunix": "google-tunix"}
PATIENCE = 5
"""How many times as long as a server a framework may take, which is read from a disk, perhaps for the first time."""
QUIET = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}


def findings(place: Place) -> list[Finding]:
    """A line for each backend. A run needs the declared one."""
    with ThreadPoolExecutor(len(BACKENDS)) as side_by_side:
        found = list(side_by_side.map(lambda name: _probed(name, place.seconds), BACKENDS))
    return [_declared(one, found) if one.name == place.config.backend.name else one for one in found]


def _declared(own: Finding, found: Sequence[Finding]) -> Finding:
    """The line of the backend that is declared: unless it works no run does, and another one may be chosen."""
    if own.state == "works":
        return own
    others = [f"backend={one.name}" for one in found if one.state == "works"]
    return replace(own, state="broken", remedy=", or ".join([own.remedy, *others[:1]]), stops=True)


def _probed(name: str, seconds: float) -> Finding:
    if not installed(BACKENDS[name].package):
        return Finding(name, "absent", "not installed", install(BACKENDS[name].extra))
    code = f"{PROBES[name]}; import json; print(); print(json.dumps(found))"
    try:
        answer = output([sys.executable, "-c", code], PATIENCE * seconds, QUIET)
        framework, devices = json.loads(answer.splitlines()[-1])
    except TimeoutError as error:
        return Finding(name, "broken", f"{error}: it hangs, or the machine is busy", "doctor --seconds 30 waits longer")
    except (OSError, RuntimeError) as error:
        remedy = f"{sys.executable} -c '{code.partition(';')[0]}' says more"
        return Finding(name, "broken", str(error), remedy)
    own = version(DISTRIBUTIONS[name]) if name in DISTRIBUTIONS else None
    said = framework if own is None else f"{own} on jax {framework}"
    kinds = {kind: devices.count(kind) for kind in devices}
    return Finding(name, "works", f"{said}; sees {', '.join(f'{count} × {kind}' for kind, count in kinds.items())}")
