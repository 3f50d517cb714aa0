"""Look at your file (or a data set of the hub), say what it holds, and write an experiment that learns it.

The experiment is `conf/experiment/NAME.yaml` of the working directory: a few lines that can be changed. With
`--evaluate` it trains nothing: the file's prompts are asked of the model as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt import hints
from tunix_rt.commands import Parser
from tunix_rt.errors import InputError
from tunix_rt.files import to_json
from tunix_rt.terminal import out, table

SHOWN = 3
"""Files of a split that are named."""

if TYPE_CHECKING:
    from tunix_rt.starter import Starter


def main(arguments: Sequence[str]) -> int:
    """Print what was found, the file that was written, and the next command."""
    parser = Parser("init", __doc__, "--json")
    parser.add_argument("source", help="a file, a folder, a glob, or ORG/NAME on the hub")
    parser.add_argument("--name", help="of the experiment (default: from the file)")
    parser.add_argument(
        "--model", default="smollm2_135m", help="a file of conf/model, or a model folder (default smollm2_135m)"
    )
    parser.add_argument("--columns", nargs="+", default=[], metavar="FIELD=COLUMN", help="prompt=question completion=…")
    parser.add_argument(
        "--evaluate", action="store_true", help="an experiment that asks the model as it is, and trains nothing"
    )
    parser.add_argument("--force", action="store_true", help="write over an experiment of that name")
    chosen = parser.parse(arguments)

    from tunix_rt.starter import start, write

    pairs = [word.partition("=") for word in chosen.columns]
    if wrong := [field for field, equals, column in pairs if not equals or not column]:
        raise InputError(f"--columns: {wrong[0]!r}: expected FIELD=COLUMN, for example prompt=question")
    columns = {field: column for field, _, column in pairs}
    starter = start(chosen.source, chosen.name, chosen.model, columns, chosen.evaluate)
    file = write(starter, Path(), chosen.force)
    if chosen.json:
        out(to_json({"experiment": starter.name, "file": str(file), "found": dict(_rows(starter))}))
        return 0
    table("", (), list(_rows(starter)))
    for problem in [*starter.found.invalid, *starter.lengths.problems][:3]:
        out(f"left out: {problem}")
    out(f"\n{file}:\n{starter.text}")
    out(f"see what it becomes:  {hints.tunix_rt('traces', f'+experiment={starter.name}')}")
    what = "ask and score it:    " if chosen.evaluate else "train and score it:  "
    out(f"{what} {hints.tunix_rt(f'+experiment={starter.name}')}")
    return 0


def _rows(starter: Starter) -> Iterator[tuple[str, str]]:
    found, lengths = starter.found, starter.lengths
    named = "".join(f", {field} from {column}" for field, column in found.columns.items())
    mixed = ", ".join(f"{count:,} {shape}" for shape, count in found.shapes.most_common())
    yield "shape", (found.adapter if len(found.shapes) == 1 else f"auto: {mixed}") + named
    for split, files in starter.files.items():
        if len(files) > 1 or len(starter.files) > 1:
            shown = ", ".join(map(str, files[:SHOWN])) + (", …" if len(files) > SHOWN else "")
            yield f"files of {split}", f"{len(files):,}: {shown}"
    splits = ", ".join(f"{looked.rows:,} {split}" for split, looked in found.splits.items())
    yield "records", f"{found.rows:,}" + (f": {splits}" if len(found.splits) > 1 else "")
    if found.num_invalid:
        yield "not valid", f"{found.num_invalid:,}, left out"
    yield "messages", ", ".join(f"{count:,} {role}" for role, count in found.roles.most_common())
    for what, count in found.features.most_common():
        yield what, f"{count:,}"
    if "split: {validation: 0.0, test: 0.0}" in starter.text and "test" not in found.splits:
        yield "held out", "none, too few different prompts: the model is asked what it learned"
    if found.repeated:
        yield "prompts that occur again", f"{found.repeated:,}, kept: several answers to one question"
    if starter.overlaps:
        what = "left out" if "on_overlap: drop_train" in starter.text else "kept: without them nothing would be left"
        yield "prompts that share text with held-out ones", f"{starter.overlaps:,}, {what}"
    if found.rules.unused:
        yield "columns not used, kept in meta", ", ".join(sorted(found.rules.unused))
    if len(found.sample) < found.num_valid:
        yield "tokenised", f"{len(found.sample):,} records, drawn from the whole file"
    tokens, answers = sorted(lengths.tokens), sorted(lengths.answers)
    yield "tokens", f"shortest {tokens[0]:,}, median {tokens[len(tokens) // 2]:,}, longest {tokens[-1]:,}"
    yield "tokens of answers", f"median {answers[len(answers) // 2]:,}, longest {answers[-1]:,}"
    if over := sum(length > lengths.positions for length in tokens):
        yield "longer than the model", f"{100 * over / len(tokens):.1f} % (over {lengths.positions:,} tokens), left out"
    if lengths.problems:
        yield "not writable for the model", f"{len(lengths.problems):,} of {len(found.sample):,}"
    for what, count in (found.rules.noted + lengths.noted).items():
        yield what, f"{count:,}"
