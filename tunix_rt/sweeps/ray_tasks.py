"""The one place that knows Ray: a cluster found or started, tasks handed to it, their ends awaited."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any


def run_on_ray(
    address: str | None,
    num_cpus: int | None,
    resources: dict[str, Any],
    task: Callable[..., Any],
    shared: Sequence[Any],
    jobs: Sequence[Sequence[Any]],
) -> list[Any]:
    """`task(*shared, *job)` for each job, as Ray tasks; their values in order. Raises RayError after all have ended.

    `address` None starts a cluster on this machine, which ends with the call.
    """
    # A task without GPUs would otherwise be shown none, also where the member asks for one by its index.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    started = not ray.is_initialized()
    if started:
        own: dict[str, Any] = {"num_cpus": num_cpus} if address is None else {}
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False, **own)
    try:
        remote = ray.remote(max_retries=0, **resources)(task)
        parts = [ray.put(part) for part in shared]
        waiting = [remote.remote(*parts, *job) for job in jobs]
        ray.wait(waiting, num_returns=len(waiting))
        return [ray.get(done) for done in waiting]
    finally:
        if started:
            ray.shutdown()
