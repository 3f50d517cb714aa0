"""The section `dataset`: where traces come from, what is checked, what is learned from them."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import Discriminator

from tunix_rt.config.choices import Adapter
from tunix_rt.config.section import Added, Count, Execution, Natural, Text, Unit, section

Fraction = Annotated[float, Ge(0), Le(1)]
Weight = Annotated[float, Ge(0), Le(100)]
Traces = Annotated[Count, Unit("traces")]
Digits = Annotated[int, Ge(1), Le(6)]


@section
class ArithmeticSource:
    """Problems generated from `dataset.seed`, every step written out."""

    kind: Literal["arithmetic"]
    version: Literal[1]
    """Version of the generator; part of the identity, raised when the generated text changes."""
    operation: Literal["add", "multiply"]
    """What is done with the two operands."""
    digits: tuple[Digits, Digits]
    """Digits of the first and of the second operand (no leading zero)."""
    fewest_digits: Added[Digits | None] = None
    """Operands may have as few digits as this; with 1, 0 is one too. null: they have exactly `digits`."""
    wording: Literal["symbols", "words", "plain", "reversed", "simplified_scratchpad", "detailed_scratchpad"]
    """`symbols`: `47*86=`, meant for one token per character; `words`: a sentence with names and things; the others are
    the formats of additions in arXiv 2307.03381 (docs/teaching-arithmetic.md); `plain` and `reversed` have no steps."""
    steps: Literal["full", "none", "shuffled", "reversed", "wrong"]
    """`wrong`: carries are drawn at random and propagate to the last step; the final answer stays correct."""
    num_traces: Annotated[Count, Unit("problems")] | None
    """How many distinct problems are drawn; null: all that exist (symbols only)."""


@section
class ParitySource:
    """The parity of random bits, generated from `dataset.seed`: some traces have every running parity, the others the
    answer alone (arXiv 2510.11495)."""

    kind: Literal["parity"]
    version: Literal[1]
    """Version of the generator; part of the identity, raised when the generated text changes."""
    bits: Annotated[int, Ge(2), Le(32), Unit("bits")]
    """Bits of a problem; the steps are the running parities of all but the last."""
    steps_share: Fraction
    """Share of the traces that have steps, drawn for each problem from `dataset.seed`."""
    num_traces: Annotated[Count, Unit("problems")] | None
    """How many distinct problems are drawn; null: all that exist."""


GeneratedSource = ArithmeticSource | ParitySource
"""Sources whose problems are generated: whatever they hold is for training until `dataset.split` holds some out."""


@section
class DataFile:
    """The files of one split and the shape of their records."""

    path: Execution[Text | tuple[Text, ...]]
    """A file (JSONL, a JSON array, CSV, TSV, Parquet; also .gz, .zst), a folder, a glob, or a list of them; relative to
    the working directory, or absolute."""
    adapter: Adapter = "auto"
    """The shape of a record; `auto`: the one that its fields show."""
    columns: dict[Text, Text] = field(default_factory=dict)
    """Field of the adapter → field of the file, for example `{prompt: question, completion: solution}`."""


@section
class FilesSource:
    """Local files. A split without its own files is carved from `train` by `dataset.split`."""

    kind: Literal["files", "jsonl"]
    """`jsonl`: as earlier versions called it."""
    version: Execution[Count | Text] = 1
    """Names the content of the files: it must never change under the same version."""
    train: DataFile | None = None
    """null: there is nothing to train on, which `training=none` does not need."""
    validation: DataFile | None = None
    test: DataFile | None = None
    origin: Execution[Text | None] = None
    """Where the files can be downloaded, shown when one is missing."""


@section
class HuggingfaceSource:
    """A data set of the Hugging Face hub, read with the `datasets` library at a pinned revision."""

    kind: Literal["huggingface"]
    name: Text
    """Name on the hub, for example `openai/gsm8k`."""
    subset: str | None
    """Name of a configuration of the data set; null: it has only one."""
    revision: Text
    """A commit, tag or branch; only a commit is immutable."""
    train: Text | None
    """Name of the hub's split used for training; null: none, which `training=none` does not need."""
    validation: Text | None
    """Name of the hub's split used for validation; null: held out by `dataset.split`."""
    test: Text | None
    """Name of the hub's split used for the test; null: held out by `dataset.split`."""
    adapter: Adapter
    """The shape of a record; `auto`: the one that its fields show."""
    columns: dict[Text, Text] = field(default_factory=dict)
    """Field of the adapter → column of the data set."""


OneSource = Annotated[GeneratedSource | FilesSource | HuggingfaceSource, Discriminator("kind")]


@section
class MixedSource:
    """One source of a mixture."""

    weight: Annotated[float, Gt(0), Le(100)] = 1.0
    """How often each of its training traces is seen in an epoch; with 0.25, a quarter of them, chosen by hash."""
    source: OneSource
    """As `dataset.source` is declared otherwise."""


@section
class MixtureSource:
    """Several sources, each with a weight. A trace has its source's name in `meta.dataset`, a slice of every score."""

    kind: Literal["mixture"]
    sources: Annotated[dict[Text, MixedSource], MinLen(1)]
    """Name of each source → weight and source."""


@section
class SplitConfig:
    """Shares of the `train` source held out by hash, for splits without their own source."""

    validation: Fraction
    """Share of the traces held out for evaluation during training."""
    test: Fraction
    """Share of the traces held out for the final answers."""


@section
class LimitConfig:
    """Maximum number of traces per split (those with the lowest hashes are kept); null: all. A smaller number keeps a
    part of what a larger one does."""

    train: Traces | None
    """Traces to train on."""
    validation: Traces | None
    """Traces to evaluate on during training."""
    test: Traces | None
    """Traces whose prompts are answered at the end."""
    balance: Added[Text | None] = None
    """A key of `meta`: `train` keeps equally many traces of each of its values, as far as there are so many; null: as
    many as there happen to be."""


@section
class LossWeights:
    """Weight of a token as a target, by the part of the trace it belongs to; 0: not a target."""

    prompt: Weight
    """Of the prompt, and of all context before it."""
    previous_turns: Weight
    """The assistant's turns before the last one, each with its end token; 0: only the last turn is learned."""
    steps: Weight
    """Of the steps."""
    answer: Weight
    """Of the final answer."""
    end: Weight
    """Of the end token: without it a model does not learn to stop."""


@section
class DatasetConfig:
    """Source, checks, split and what is learned from a trace."""

    name: Execution[Text]
    """Names the folder of prepared data: `data/<name>/<identity>/`. A label: the same data under two names has one
    identity and is prepared in two folders with the same content."""
    seed: Natural = 0
    """Decides which problems are generated and which traces are held out; the same in every member of a sweep over
    `seed`. null: the experiment's `seed`."""
    source: Annotated[GeneratedSource | FilesSource | HuggingfaceSource | MixtureSource, Discriminator("kind")]
    """Where the traces come from: generated problems, files, a data set of the hub, or several of these."""
    split: SplitConfig
    limit: LimitConfig
    max_length: Annotated[int, Ge(2), Unit("tokens")] | None
    """Maximum tokens per trace, prompt and end token included; null: the number of positions of the model."""
    steps: Literal["keep", "drop"]
    """`drop` trains on the answer only."""
    loss_weights: LossWeights
    on_invalid: Literal["error", "skip"]
    """What to do with a record that is not a valid trace."""
    on_duplicate: Literal["error", "first", "keep"]
    """A prompt that occurs twice after normalisation; in a separate evaluation file, only if it is identical. `keep`:
    several answers to one question are learned."""
    on_overlap: Literal["error", "drop_train", "allow"]
    """A training prompt that equals an evaluation prompt or shares a run of `overlap_ngram` words with one."""
    overlap_ngram: Annotated[int, Ge(2), Le(100), Unit("words")]
    """Words in the run that counts as shared."""
    near_duplicates: Annotated[float, Ge(0.3), Le(0.95)] | None = None
    """Similarity from which two prompts are near-duplicates (0.8 is usual); null: they are not looked for."""
    on_near_duplicate: Literal["report", "drop"] = "report"
    """A training prompt that is similar to one of evaluation, or to an earlier one of training."""
    max_characters: Annotated[Count, Unit("characters")] = 1_000_000
    """Most characters of a message; a longer one is not a valid trace."""
    on_consecutive: Literal["error", "join", "keep"] = "error"
    """Messages of one role in a row: `join` makes one of them, with an empty line between; `keep` leaves it to the
    chat template."""
    on_last_user: Literal["error", "drop"] = "error"
    """Messages after the assistant's last one, from which nothing is learned."""
    previous_thoughts: Literal["template", "inline"] = "template"
    """Thoughts of previous turns: `template` leaves them to the chat template (most leave them out), `inline` shows
    them as they were written."""
    strip: bool = False
    """Removes white space at the ends of messages, for chat templates that do so themselves."""
    on_overlong: Literal["error", "drop", "truncate"]
    """A trace of more than `max_length` tokens; `truncate` cuts its end."""
    on_no_target: Literal["error", "drop"]
    """A trace with no token of positive weight."""
