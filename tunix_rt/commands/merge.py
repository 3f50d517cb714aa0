"""Make one whole model folder of an adapter (of a run with model/adapter=lora, or in PEFT's layout) and its base.

The folder that comes out holds float32 weights and the tokenizer; plain transformers loads it, and so does
model=from_path model.source.path=OUT.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunix_rt.commands import Parser
from tunix_rt.errors import InputError
from tunix_rt.terminal import out


def main(arguments: Sequence[str]) -> int:
    """Merge the adapter into its base and write the model folder."""
    parser = Parser("merge", __doc__, "--root")
    parser.add_argument("adapter", help="a run (a name, a prefix or `last`), or an adapter's folder")
    parser.add_argument("out", type=Path, help="the folder to make; it must not exist yet")
    parser.add_argument("--base", type=Path, help="the base's folder (default: where the adapter says it is)")
    chosen = parser.parse(arguments)

    from tunix_rt.models.adapter_merge import merge
    from tunix_rt.models.folder import is_adapter
    from tunix_rt.models.reference import is_reference
    from tunix_rt.models.sources import base_folder, opened
    from tunix_rt.runs.folder import find_run
    from tunix_rt.traces.prepared import PreparedData

    folder, start = Path(chosen.adapter), chosen.base
    if not is_adapter(folder):
        run = find_run(chosen.root, chosen.adapter)
        folder = run.model
        if is_reference(folder):
            raise InputError(f"{run.name}: asked a model as it is, which has no adapter: nothing is to be merged")
        if not is_adapter(folder):
            raise InputError(f"{run.name}: its model is a whole one already ({folder}), or not there yet")
        if start is None and (prepared := PreparedData(run.data_folder)).is_whole:
            start = prepared.model_folder  # its current path; the adapter records the path it had in training
    if chosen.out.exists():
        raise InputError(f"{chosen.out}: exists already; name a new folder")
    base, _ = opened(folder, start or base_folder(folder))
    merge(folder, base, chosen.out)
    out(f"{chosen.out}: the adapter {folder} merged with its base {base}")
    return 0
