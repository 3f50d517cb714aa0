"""A member that no node of a Ray cluster can take is reported, instead of waited for."""

from __future__ import annotations

import pytest

from tunix_rt.errors import MachineError
from tunix_rt.sweeps.ray_nodes import check_nodes

NODES = [
    {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}},
    {"Alive": True, "Resources": {"CPU": 64.0}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
]


def test_a_node_that_is_large_enough_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    check_nodes(NODES, {"num_cpus": 8, "num_gpus": 2}, fixed=True)
    check_nodes(NODES, {"num_cpus": 64, "num_gpus": 0}, fixed=True)
    assert capsys.readouterr().err == ""


def test_the_parts_of_two_nodes_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MachineError, match=r"takes 16 CPU, 2 GPU of one node .*; no node has more than 64 CPU, 2 GPU$"):
        check_nodes(NODES, {"num_cpus": 16, "num_gpus": 2}, fixed=True)
    check_nodes(NODES, {"num_cpus": 1, "num_gpus": 8}, fixed=False)
    assert "members wait until one joins the cluster" in capsys.readouterr().err
