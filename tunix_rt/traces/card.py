"""`data.md`, the data card of prepared data: what was read, what was left out and why, what is in each split.

Every number is from the manifest, so the card says nothing that is not recorded there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tunix_rt.files import JsonObject

SPLIT = {
    "count": "traces",
    "tokens": "tokens",
    "target_tokens": "targets",
    "rejected_tokens": "tokens of rejected completions",
}
"""What is counted of a split → its column."""
LONGEST = 160
"""Characters of an example."""


def card(manifest: JsonObject) -> str:
    """The card as Markdown."""
    return "\n".join(_lines(manifest)) + "\n"


def _lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    counts = manifest["counts"]
    yield f"# Data: {manifest['name']}"
    yield ""
    yield f"{counts['read']:,} records were read; {counts['unused']:,} are beyond `dataset.limit`."
    if manifest["files"]:
        rows = [(f"`{file['path']}`", file["split"], f"`{file['sha256'][:12]}`") for file in manifest["files"]]
        yield from _table(("file", "split", "sha256"), rows)
    yield "\n## Splits"
    keys = [key for key in SPLIT if any(key in record for record in manifest["splits"].values())]
    yield from _table(("split", *(SPLIT[key] for key in keys), "sha256"), list(_splits(manifest["splits"], keys)))
    yield "\n## Left out"
    left = {**counts["rejected"], **{f"{kind} (when tokenised)": n for kind, n in counts["dropped"].items()}}
    yield from _table(("reason", "records"), [(kind, f"{number:,}") for kind, number in left.items()])
    yield from _examples(record["reason"] for record in manifest["rejected"])
    yield "\n## Changed on the way in"
    yield from _table(("what", "times"), [(what, f"{number:,}") for what, number in counts["noted"].items()])
    yield "\n## To look at"
    found = manifest["findings"]
    yield from _table(("finding", "traces"), [(name, f"{item['count']:,}") for name, item in found.items()])
    for name, item in found.items():
        if item["examples"]:
            yield f"\n{name.capitalize()}:"
            yield from _examples(item["examples"])


def _splits(splits: Mapping[str, Any], keys: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for name, record in splits.items():
        numbers = [f"{record[key]:,}" if key in record else "–" for key in keys]
        yield (name, *numbers, f"`{record['sha256'][:12]}`")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        yield "\nNothing."
        return
    yield ""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _examples(texts: Iterable[str]) -> Iterator[str]:
    shown = list(texts)[:5]
    if shown:
        yield ""
    for text in shown:
        line = " ".join(text.split()).replace("`", "'")
        yield f"- `{line[:LONGEST]}{'…' if len(line) > LONGEST else ''}`"
