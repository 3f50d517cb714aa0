"""DVC's stages `gate@…`, one for each of `run.gates`: the run against an earlier one. Exit code 5: it is worse."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tunix_rt.__main__ import guarded
from tunix_rt.commands.gate import report
from tunix_rt.pipeline import read_params, wants_traceback
from tunix_rt.records.gate import declared_gate
from tunix_rt.runs.folder import PIPELINE, RunFolder
from tunix_rt.runs.origin import workspace
from tunix_rt.tracking.registry import ModelStore


def gate(words: Sequence[str]) -> int:
    """Try one gate, which DVC gives as `--key value`; other runs are those of the checkout, for a queued run too."""
    home, config = workspace(Path.cwd()), read_params()
    pairs = zip(words[::2], words[1::2], strict=True)
    declared = declared_gate([f"{key.removeprefix('--')}={value}" for key, value in pairs])
    root = Path(config.run.root)
    return report(RunFolder(root / PIPELINE), [declared], home / root, lambda: ModelStore.of(config.tracking, home))


if __name__ == "__main__":
    sys.exit(guarded(lambda: gate(sys.argv[1:]), wants_traceback()))
