"""DVC's stages `pairs@…`, one for each of `run.pairs`: preference pairs of the run's own answers."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tunix_rt.__main__ import guarded
from tunix_rt.config.load import check_section
from tunix_rt.config.pairs import PairsConfig
from tunix_rt.pipeline import read_params, wants_traceback
from tunix_rt.records.pairs import Rule, pairs_of, write_pairs
from tunix_rt.runs.folder import PIPELINE, RunFolder
from tunix_rt.traces.prepared import PreparedData


def pairs(words: Sequence[str]) -> int:
    """Make one set of pairs, which DVC gives as `--key value`."""
    given = {key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2], strict=True)}
    declared: PairsConfig = check_section("run.pairs", PairsConfig, given)
    config, rule = read_params(), Rule(declared.by, declared.most)
    run = RunFolder(Path(config.run.root) / PIPELINE)
    prepared = PreparedData(run.data_folder)
    built = pairs_of(run, config, prepared, rule)
    write_pairs(run, config, prepared, built, rule, Path(declared.to) / "pairs.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: pairs(sys.argv[1:]), wants_traceback()))
