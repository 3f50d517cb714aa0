"""A run's model as a folder for Ollama: the GGUF file, and a Modelfile with the run's own prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tunix_rt.checked import replaced
from tunix_rt.config.choices import GgufDtype
from tunix_rt.config.format import FormatConfig, ThinkChatFormat, ThinkFormat
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import DataError, ModelError
from tunix_rt.experiment import recorded_config
from tunix_rt.exporting.conversation import Turns, find_turns
from tunix_rt.exporting.go_template import template
from tunix_rt.exporting.run import TO_EXPORT, place_for
from tunix_rt.files import apply_umask, write_text
from tunix_rt.inference.trained import whole_model
from tunix_rt.models.folder import read_architecture
from tunix_rt.models.gguf_families import family_of, longest_context
from tunix_rt.models.gguf_write import require_package, write_gguf
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import warn
from tunix_rt.traces.format import formatter
from tunix_rt.traces.prediction import read_predictions
from tunix_rt.traces.trace import Message

MODELFILE, WEIGHTS = "Modelfile", "model.gguf"
CONTEXT_STEP = 1024
"""`num_ctx` is a multiple of it, in tokens, so that prompts a little longer than the run's fit too."""
OTHER_WAY = "export the model alone (--to gguf) and give llama.cpp the prompts as text"


def export_ollama(run: RunFolder, chosen: Path | None, dtype: GgufDtype) -> Path:
    """Write the folder, which must not exist; returns where it is.

    Raises InputError (not finished, there already), ModelError: what GGUF, or a template of Ollama, cannot say.
    """
    run.check_finished(TO_EXPORT)
    require_package()
    folder, config = place_for(run, chosen, "-ollama"), recorded_config(run)
    with whole_model(run, "exported") as model:
        text = modelfile(model, config.format, config.generation, _longest_prompt(run))
        with replaced(folder) as part:
            write_gguf(model, part / WEIGHTS, dtype, run.name)
            write_text(part / MODELFILE, text)
            apply_umask(part)
    return folder


def modelfile(model: Path, format: FormatConfig, generation: GenerationConfig, longest_prompt: int) -> str:
    """The Modelfile for a model folder: its template writes the prompts of the format, without what begins every text.

    `longest_prompt`: of the run, in tokens. Ollama has room for it and its answer, not for all that the model can: it
    allocates the whole key-value cache at once. Raises ModelError: prompts that are not texts between messages.
    """
    tokenizer, architecture = Tokenizer.load(model), read_architecture(model)
    turns = turns_of(tokenizer, format)
    if not turns.several:
        warn("Ollama: each question is asked without the turns before it, which this format does not show unchanged")
    steps = math.ceil((longest_prompt + generation.max_new_tokens) / CONTEXT_STEP)
    settings = {
        "num_ctx": min(steps * CONTEXT_STEP, longest_context(architecture, family_of(architecture))),
        "num_predict": generation.max_new_tokens,
        "temperature": generation.temperature,
        "seed": generation.seed,
        "top_k": generation.top_k or 0,
        "top_p": generation.top_p or 1.0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,  # Ollama's own is 1.1
    }
    lines = [f"FROM ./{WEIGHTS}", f'TEMPLATE """{template(turns)}"""']
    lines += [f"PARAMETER {name} {value}" for name, value in settings.items()]
    lines += [f'PARAMETER stop "{token}"' for token in _stops(tokenizer)]
    return "\n".join(lines) + "\n"


def _longest_prompt(run: RunFolder) -> int:
    return max((prediction.num_prompt_tokens for prediction in read_predictions(run.predictions)), default=0)


def turns_of(tokenizer: Tokenizer, format: FormatConfig) -> Turns:
    """The texts around the messages, without the token that llama.cpp itself puts before every text."""
    own, begin = formatter(format, tokenizer), tokenizer.begin_token

    def prompt(messages: Sequence[Message]) -> str:
        text = own.prompt(messages)
        if not text.startswith(begin):
            raise ModelError(f"the prompt does not begin with {begin!r}, which llama.cpp puts before every text")
        return text.removeprefix(begin)

    thoughts = isinstance(format, ThinkFormat | ThinkChatFormat)
    try:
        return find_turns(prompt, ["<think>\n1\n</think>\n\n2"] if thoughts else ["2", "a\nAnswer: 2"])
    except (DataError, ModelError) as error:
        raise ModelError(f"Ollama: {error}; {OTHER_WAY}") from None


def _stops(tokenizer: Tokenizer) -> tuple[str, ...]:
    for token in tokenizer.end_tokens:
        if '"' in token or "\n" in token:
            raise ModelError(f"Ollama: a Modelfile cannot name the end token {token!r}; {OTHER_WAY}")
    return tokenizer.end_tokens
