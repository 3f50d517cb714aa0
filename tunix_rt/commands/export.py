"""Put a run into one zip file with everything needed to believe it, or its model into a form that other programs take.

The zip file is what `verify FILE.zip` checks anywhere. With --to: `gguf` is one file for llama.cpp, `ollama` a folder
for Ollama with the run's own prompts, `card` a model card from the record, `hub` a repository of the Hugging Face hub,
private unless --public. An adapter is merged with its base, except on the hub. docs/elsewhere.md says what opens each.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from tunix_rt import hints
from tunix_rt.commands import Parser
from tunix_rt.config.choices import GgufDtype
from tunix_rt.errors import InputError
from tunix_rt.files import to_json
from tunix_rt.terminal import out

Said = tuple[dict[str, Any], list[str]]
"""What was made, as a JSON object and in lines."""


def main(arguments: Sequence[str]) -> int:
    """Export a finished run."""
    parser = Parser("export", __doc__, "run", "--json", "--root")
    parser.add_argument("file", nargs="?", type=Path, help="default: EXPERIMENT-IDENTITY… in the folder of the runs")
    parser.add_argument("--to", choices=tuple(FORMS), default="zip", help="the form (default: zip)")
    parser.add_argument("--output", type=Path, help="the same as the file behind the run")
    parser.add_argument("--no-model", action="store_true", help="zip: leave the model folder out")
    dtypes = get_args(GgufDtype)
    parser.add_argument("--dtype", choices=dtypes, default="F16", help="gguf, ollama: of matrices (default: F16)")
    parser.add_argument("--adapter", action="store_true", help="gguf: the adapter by itself, for llama.cpp's --lora")
    parser.add_argument("--repo", help="hub: the repository, OWNER/NAME or your own NAME")
    parser.add_argument("--public", action="store_true", help="hub: everybody may see it")
    parser.add_argument("--merge", action="store_true", help="hub: an adapter merged with its base")
    parser.add_argument("--license", help="card, hub: the model's licence, as the hub names it (apache-2.0, …)")
    chosen = parser.parse(arguments)
    if chosen.file is not None and chosen.output is not None:
        raise InputError(f"{chosen.file} and --output {chosen.output}: name one of the two")
    record, lines = FORMS[chosen.to](chosen, chosen.file or chosen.output)
    for line in [to_json(record)] if chosen.json else lines:
        out(line)
    return 0


def _zip(chosen: Namespace, place: Path | None) -> Said:
    from tunix_rt.records.verify import export_run

    made = export_run(chosen.run, place, not chosen.no_model)
    said = f"{made.file}: {made.files} files, {made.bytes:,} bytes{'' if made.model else ', without the model'}"
    return asdict(made), [said, f"check it: {hints.tunix_rt('verify', str(made.file))}"]


def _gguf(chosen: Namespace, place: Path | None) -> Said:
    from tunix_rt.exporting.gguf import export_adapter, export_gguf

    file = (export_adapter if chosen.adapter else export_gguf)(chosen.run, place, chosen.dtype)
    size, use = file.stat().st_size, f"--lora {file}" if chosen.adapter else f"-m {file}"
    record = {"file": str(file), "bytes": size, "dtype": chosen.dtype}
    return record, [f"{file}: {size:,} bytes, {chosen.dtype}", f"ask it: llama-cli {use}"]


def _ollama(chosen: Namespace, place: Path | None) -> Said:
    from tunix_rt.exporting.ollama import MODELFILE, export_ollama

    folder = export_ollama(chosen.run, place, chosen.dtype)
    name = chosen.run.path.parent.name
    ask = f"ollama create {name} -f {folder / MODELFILE} && ollama run {name}"
    record = {"folder": str(folder), "dtype": chosen.dtype}
    return record, [f"{folder}: the model and its {MODELFILE}", f"ask it: {ask}"]


def _card(chosen: Namespace, place: Path | None) -> Said:
    from tunix_rt.exporting.card import export_card

    file = export_card(chosen.run, place, chosen.license)
    return {"file": str(file)}, [str(file)]


def _hub(chosen: Namespace, place: Path | None) -> Said:
    if chosen.repo is None:
        raise InputError("--to hub needs a repository: --repo OWNER/NAME")
    if place is not None:
        raise InputError(f"{place}: the hub takes no file; --repo names the repository")
    from tunix_rt.exporting.hub import export_hub

    made = export_hub(chosen.run, chosen.repo, chosen.public, chosen.merge, chosen.license)
    seen = "private" if made.private else "public"
    return asdict(made), [f"{made.url}: {made.files} files, {seen}, commit {made.commit[:12]}"]


FORMS: dict[str, Callable[[Namespace, Path | None], Said]] = {
    "zip": _zip,
    "gguf": _gguf,
    "ollama": _ollama,
    "hub": _hub,
    "card": _card,
}
"""What --to takes."""
