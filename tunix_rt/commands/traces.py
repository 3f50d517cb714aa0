"""Look at the traces of an experiment before training: text with its targets coloured, lengths, packing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, product
from typing import TYPE_CHECKING

from tunix_rt.commands import Parser
from tunix_rt.files import to_json
from tunix_rt.styled import coloured
from tunix_rt.terminal import out, table

if TYPE_CHECKING:
    from tunix_rt.config.choices import SplitName
    from tunix_rt.config.format import FormatConfig
    from tunix_rt.models.tokenizer import Tokenizer
    from tunix_rt.traces.prepared import PreparedData


def main(arguments: Sequence[str]) -> int:
    """Prepare the data if not done yet, and show it."""
    parser = Parser("traces", __doc__, "overrides", "--json")
    parser.add_argument("-n", type=int, default=3, help="how many traces are shown (default 3)")
    chosen = parser.parse(arguments)

    import numpy as np

    from tunix_rt.batches.encoded import REJECTED, EncodedDataset
    from tunix_rt.batches.schedule import schedule_of
    from tunix_rt.config.load import check, compose
    from tunix_rt.inputs import prepared_data
    from tunix_rt.models.tokenizer import Tokenizer
    from tunix_rt.report.lengths import histogram
    from tunix_rt.traces.prepared import left_out
    from tunix_rt.tracking.registry import ModelStore

    config = check(compose(chosen.overrides))
    prepared = prepared_data(config, ModelStore(config.tracking.uri))
    if not config.training.trains:
        return _show_asked(prepared, config.generation.split, config.format, chosen.n, chosen.json)
    dataset = EncodedDataset.open(prepared.encoded("train"))
    _, facts = schedule_of(config.objective.data, config.training, prepared)
    shown = {"": dataset}
    if config.objective.data == "pairs":
        shown = {" chosen": dataset, " rejected": EncodedDataset.open(prepared.encoded("train") / REJECTED)}
    lengths = np.concatenate([found.lengths + 1 for found in shown.values()])
    split = prepared.manifest["splits"]["train"]
    if chosen.json:
        first = [trace.to_json() for trace in islice(prepared.each_trace("train"), chosen.n)]
        out(to_json({"folder": str(prepared.folder), **facts, "lengths": lengths.tolist(), **split, "traces": first}))
        return 0
    tokenizer = Tokenizer.load(prepared.model_folder)
    for index, (name, found) in product(range(min(chosen.n, len(dataset))), shown.items()):
        ids, weights = found.sequence(index)
        out(f"\n{dataset.ids[index]}{name}: {len(ids)} tokens, {int((weights > 0).sum())} of them targets")
        coloured(list(_shown(tokenizer, ids.tolist(), weights.tolist())))
    range_of = f"shortest {lengths.min()}, mean {lengths.mean():.1f}, longest {lengths.max()}"
    rows = [
        ("training traces" if len(shown) == 1 else "training pairs", f"{len(dataset):,}"),
        ("tokens", f"{int(lengths.sum()):,} ({range_of})"),
        ("supervised", f"{100 * split['target_tokens'] / split['tokens']:.1f} % of the tokens are targets"),
        ("row length", str(facts["row_length"])),
        ("packing", f"{100 * facts['packing_efficiency']:.1f} % of the positions in rows hold traces"),
        ("steps", f"{facts['num_steps']} ({facts['num_epochs']} epochs)"),
        ("prepared data", str(prepared.folder)),
        *[(f"left out: {reason}", f"{count:,}") for reason, count in left_out(prepared.manifest["counts"]).items()],
        *[(what, f"{count:,}") for what, count in prepared.manifest["counts"]["noted"].items()],
    ]
    table("", (), rows)
    for record in prepared.manifest["rejected"][: chosen.n]:
        out(f"left out: {record['reason']}")
    out("tokens per trace\n" + histogram(lengths.tolist()))
    return 0


def _show_asked(prepared: PreparedData, split: SplitName, form: FormatConfig, number: int, as_json: bool) -> int:
    """What is asked if nothing is trained: prompts as the model gets them, and their references."""
    from tunix_rt.batches.reader import Reader

    traces = list(islice(prepared.each_trace(split), number))
    count = prepared.manifest["splits"][split]["count"]
    if as_json:
        shown = [trace.to_json() for trace in traces]
        out(to_json({"folder": str(prepared.folder), "split": split, "count": count, "traces": shown}))
        return 0
    reader = Reader.of(prepared.model_folder, form)
    for trace in traces:
        question = reader.question(trace)
        problem = f", cannot be asked: {question.problem}" if question.problem else ""
        out(f"\n{trace.id}: {len(question.ids)} tokens{problem}")
        coloured([(question.prompt, "dim"), (str(trace.final_answer), "bold green")])
    rows = [(f"{split} prompts", f"{count:,}"), ("training", "none"), ("prepared data", str(prepared.folder))]
    table("", (), rows)
    return 0


def _shown(tokenizer: Tokenizer, ids: list[int], weights: list[float]) -> Iterator[tuple[str, str]]:
    """Whole characters with their style: targets stand out."""
    position = 0
    for count, text in tokenizer.pieces(ids):
        yield text, "bold green" if weights[position] > 0 else "dim"
        position += count
