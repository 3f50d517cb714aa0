"""Put a run into one zip file with everything needed to believe it, or its model into a form that other programs take.

The zip file is what `verify FILE.zip` checks anywhere. With --to: `gguf` is one file for llama.cpp, `ollama` a folder
for Ollama with the run's own prompts, `card` a model card from the record, `hub` a repository of the Hugging Face hub,
private unless --public. An adapter is merged with its base, except on the hub. docs/elsewhere.md says what opens each.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from tunix_rt import hints
from tunix_rt.commands import Parser
from tunix_rt.config.choices import GgufDtype
from tunix_rt.errors import InputError
from tunix_rt.files import to_json
from tunix_rt.terminal import out

DTYPE: GgufDtype = "F16"
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
    parser.add_argument("--dtype", choices=dtypes, help=f"gguf, ollama: of matrices (default: {DTYPE})")
    parser.add_argument("--adapter", action="store_true", help="gguf: the adapter by itself, for llama.cpp's --lora")
    parser.add_argument("--repo", help="hub: the repository, OWNER/NAME or your own NAME")
    parser.add_argument("--public", action="store_true", help="hub: everybody may see it")
    parser.add_argument("--merge", action="store_true", help="hub: an adapter merged with its base")
    parser.add_argument("--license", help="card, hub: the model's licence, as the hub names it (apache-2.0, …)")
    chosen = parser.parse(arguments)
    if chosen.file is not None and chosen.output is not None:
        raise InputError(f"{chosen.file} and --output {chosen.output}: name one of the two")
    _check_options(chosen)
    record, lines = FORMS[chosen.to].make(chosen, chosen.file or chosen.output)
    for line in [to_json(record)] if chosen.json else lines:
        out(line)
    return 0


def _check_options(chosen: Namespace) -> None:
    """Raises InputError for an option of another form."""
    own = FORMS[chosen.to].options
    for name in (name for form in FORMS.values() for name in form.options):
        if getattr(chosen, name) and name not in own:
            options = ", ".join(map(_option, own))
            raise InputError(f"{_option(name)}: no option of --to {chosen.to} (its own: {options})")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _zip(chosen: Namespace, place: Path | None) -> Said:
    from tunix_rt.exporting.run import place_for
    from tunix_rt.records.verify import export_run

    made = export_run(chosen.run, place_for(chosen.run, place, ".zip"), not chosen.no_model)
    said = f"{made.file}: {made.files} files, {made.bytes:,} bytes{'' if made.model else ', without the model'}"
    return asdict(made), [said, f"check it: {hints.tunix_rt('verify', str(made.file))}"]


def _gguf(chosen: Namespace, place: Path | None) -> Said:
    from tunix_rt.exporting.gguf import export_adapter, export_gguf

    dtype = chosen.dtype or DTYPE
    file = (export_adapter if chosen.adapter else export_gguf)(chosen.run, place, dtype)
    size, use = file.stat().st_size, f"--lora {file}" if chosen.adapter else f"-m {file}"
    record = {"file": str(file), "bytes": size, "dtype": dtype}
    return record, [f"{file}: {size:,} bytes, {dtype}", f"ask it: llama-cli {use}"]


def _ollama(chosen: Namespace, place: Path | None) -> Said:
    from tunix_rt.exporting.ollama import MODELFILE, export_ollama

    dtype = chosen.dtype or DTYPE
    folder = export_ollama(chosen.run, place, dtype)
    name = chosen.run.path.parent.name
    ask = f"ollama create {name} -f {folder / MODELFILE} && ollama run {name}"
    record = {"folder": str(folder), "dtype": dtype}
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


@dataclass(frozen=True, slots=True)
class Form:
    """A form of export."""

    make: Callable[[Namespace, Path | None], Said]
    """From the words of the command and the place that they name."""
    options: tuple[str, ...]
    """The options that it has beside the place."""


FORMS = {
    "zip": Form(_zip, ("no_model",)),
    "gguf": Form(_gguf, ("dtype", "adapter")),
    "ollama": Form(_ollama, ("dtype",)),
    "hub": Form(_hub, ("repo", "public", "merge", "license")),
    "card": Form(_card, ("license",)),
}
"""What --to takes."""
