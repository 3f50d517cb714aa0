"""Whether a Ray cluster has a node for a member; Ray itself waits for one without a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunix_rt.errors import MachineError
from tunix_rt.terminal import warn

NAMES = {"num_cpus": "CPU", "num_gpus": "GPU"}
"""An option of a task → Ray's name of the resource."""


def check_nodes(nodes: Sequence[Mapping[str, Any]], options: Mapping[str, Any], fixed: bool) -> None:
    """Compare what each member takes with the nodes that there are, as `ray.nodes()` lists them.

    Raises MachineError if none is large enough and none can join (`fixed`); else warns that members wait for one.
    """
    wanted = {name: float(options[option]) for option, name in NAMES.items() if options.get(option)}
    there = [node["Resources"] for node in nodes if node["Alive"]]
    if any(all(node.get(name, 0.0) >= number for name, number in wanted.items()) for node in there):
        return
    most = {name: max((node.get(name, 0.0) for node in there), default=0.0) for name in wanted}
    message = f"each member takes {_shown(wanted)} of one node (hydra.launcher.resources); no node has more than"
    message = f"{message} {_shown(most)}"
    if fixed:
        raise MachineError(message)
    warn(f"{message}: members wait until one joins the cluster")


def _shown(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{number:g} {name}" for name, number in resources.items())
