"""Hydra's callback of a sweep: collects the members' ends, prints the ranked table, sets the exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback


class SweepSummary(Callback):
    """Hydra makes one per command; outside a sweep it does nothing."""

    def __init__(self) -> None:
        self._ends: list[tuple[tuple[str, ...], dict[str, Any]]] = []

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        """Remember how a member ended."""
        value = job_return._return_value
        end = value if isinstance(value, dict) else {"error": f"{type(value).__name__}: {value}"}
        self._ends.append((tuple(job_return.overrides or ()), end))

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        """Print the table and leave it as `ranking.json`; exit 4 where a member failed."""
        from tunix_rt.files import write_json
        from tunix_rt.sweeps.ranking import Member, ranked, rows
        from tunix_rt.terminal import say, table

        members = [
            Member(overrides, end.get("folder"), end.get("metrics"), end.get("error")) for overrides, end in self._ends
        ]
        metric, direction = str(config.sweep.metric), str(config.sweep.direction)
        columns, shown = rows(members, metric, direction)
        table(f"{config.name}: {len(members)} members, ranked by {metric}", columns, shown, right=(0,))
        file = Path(str(config.run.root)) / str(config.name) / "ranking.json"
        write_json(
            file,
            [
                {"overrides": list(m.overrides), "folder": m.folder, "metrics": m.metrics, "error": m.error}
                for m in ranked(members, metric, direction)
            ],
        )
        say(f"ranking: {file}")
        failed = sum(member.error is not None for member in members)
        if failed:
            say(f"error: {failed} of {len(members)} members failed")
            raise SystemExit(4)
