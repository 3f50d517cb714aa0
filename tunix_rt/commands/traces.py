"""Look at the traces of an experiment before training: text with its targets coloured, lengths, packing."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.commands import Parser
from tunix_rt.files import to_json
from tunix_rt.terminal import coloured, out, table


def main(arguments: Sequence[str]) -> int:
    """Prepare the data if not done yet, and show it."""
    parser = Parser("traces", __doc__, "overrides", "--json")
    parser.add_argument("-n", type=int, default=3, help="how many traces are shown (default 3)")
    chosen = parser.parse(arguments)

    from tunix_rt.batches.encoded import EncodedDataset
    from tunix_rt.batches.schedule import batch_schedule
    from tunix_rt.config.load import check, compose
    from tunix_rt.inputs import prepared_data
    from tunix_rt.models.tokenizer import Tokenizer
    from tunix_rt.report.lengths import histogram
    from tunix_rt.tracking.registry import ModelStore

    config = check(compose(chosen.overrides))
    prepared = prepared_data(config, ModelStore(config.tracking.uri))
    dataset = EncodedDataset.open(prepared.encoded("train"))
    _, facts = batch_schedule(config.training, prepared)
    lengths = dataset.lengths + 1
    split = prepared.manifest["splits"]["train"]
    if chosen.json:
        first = [trace.to_json() for trace in prepared.traces("train")[: chosen.n]]
        out(to_json({"folder": str(prepared.folder), **facts, "lengths": lengths.tolist(), **split, "traces": first}))
        return 0
    tokenizer = Tokenizer.load(prepared.model_folder)
    for index in range(min(chosen.n, len(dataset))):
        ids, weights = dataset.sequence(index)
        out(f"\n{dataset.ids[index]}: {len(ids)} tokens, {int((weights > 0).sum())} of them targets")
        weighted = zip(ids, weights, strict=True)
        coloured([(tokenizer.piece(int(token)), "bold green" if weight > 0 else "dim") for token, weight in weighted])
    range_of = f"shortest {lengths.min()}, mean {lengths.mean():.1f}, longest {lengths.max()}"
    rows = [
        ("training traces", f"{len(dataset):,}"),
        ("tokens", f"{split['tokens']:,} ({range_of})"),
        ("supervised", f"{100 * split['target_tokens'] / split['tokens']:.1f} % of the tokens are targets"),
        ("row length", str(facts["row_length"])),
        ("packing", f"{100 * facts['packing_efficiency']:.1f} % of the positions in rows hold traces"),
        ("steps", f"{facts['num_steps']} ({facts['num_epochs']} epochs)"),
        ("prepared data", str(prepared.folder)),
    ]
    table("", (), rows)
    out("tokens per trace\n" + histogram(lengths.tolist()))
    return 0
