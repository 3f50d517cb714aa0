"""Make preference pairs of a run's own answers: of each prompt the best against the worst, by the run's verdicts.

A run has several answers to a prompt if `generation.num_return_sequences` says so (`predict RUN generation=sample
generation.split=train generation.num_return_sequences=8` asks for them), or rollouts. What comes out is a data file
like any other: `dataset=files dataset.source.train.path=FILE objective=dpo` learns from it. Beside it are its card and
the run's own test set. Prompts whose answers all have one verdict are left out, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tunix_rt import hints
from tunix_rt.commands import Parser
from tunix_rt.config.choices import RankedBy
from tunix_rt.errors import InputError
from tunix_rt.files import to_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import out, table, warn


def main(arguments: Sequence[str]) -> int:
    """Write the pairs and their card, and say what was left out."""
    parser = Parser("pairs", __doc__, "run", "--json", "--root")
    parser.add_argument("--out", type=Path, help="the file to write (default data/raw/<experiment>-<identity>.jsonl)")
    ranked = "which of several answers of one verdict is better: the likelier, the shorter or the first one"
    parser.add_argument("--by", choices=get_args(RankedBy), default="confidence", help=f"{ranked} (default confidence)")
    parser.add_argument("--most", type=int, default=1, metavar="N", help="pairs of each prompt (default 1)")
    parser.add_argument("--rollouts", action="store_true", help="of the answers that the run learned from")
    chosen = parser.parse(arguments)
    if chosen.most < 1:
        raise InputError(f"--most: {chosen.most}, expected at least 1")

    from tunix_rt.experiment import recorded_config
    from tunix_rt.inputs import prepared_of
    from tunix_rt.records.pairs import Rule, pairs_of, write_pairs
    from tunix_rt.tracking.registry import ModelStore

    run: RunFolder = chosen.run
    config, rule = recorded_config(run), Rule(chosen.by, chosen.most, chosen.rollouts)
    prepared = prepared_of(run, config, ModelStore(config.tracking.uri))
    file = chosen.out or Path("data", "raw", f"{run.name.replace('/', '-')}.jsonl")
    built = pairs_of(run, config, prepared, rule)
    test = write_pairs(run, config, prepared, built, rule, file)
    if not rule.rollouts and config.training.trains and config.generation.split == "test":
        warn("these are answers to the test prompts: a model that learns from them cannot be tested on them")
    if chosen.json:
        made = {"file": str(file), "test": str(test) if test else None, "pairs": len(built.lines)}
        out(to_json(made | {"skipped": dict(+built.skipped)}))
        return 0
    left = [(f"left out: {what}", f"{count:,}") for what, count in (+built.skipped).items()]
    left += [("the run's test set", str(test))] if test else []
    table(
        "", (), [("pairs", f"{len(built.lines):,}"), *left, ("file", str(file)), ("card", str(file.with_suffix(".md")))]
    )
    # By the seed of the run its prompts are all on one side of what would be held out: the same hash chose them.
    data = ["dataset=files", f"dataset.name={file.stem}", f"dataset.seed={config.dataset.seed + 1}"]
    files = [f"dataset.source.train.path={file}", *([f"dataset.source.test.path={test}"] if test else [])]
    again = ["dataset.on_duplicate=keep"] if rule.rollouts or rule.most > 1 else []
    own = [f"format={config.format.kind}", f"format.reader={config.format.reader or 'format'}"]
    learn = [*data, *files, *again, *own, "objective=dpo", "training.row_length=null"]
    out(f"learn from them:  {hints.tunix_rt(*learn)} model.source=… (docs/preferences.md)")
    return 0
