"""The sections `model` and `tokenizer`: an architecture to train from scratch, or pretrained weights."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import AfterValidator, BeforeValidator, Discriminator

from tunix_rt.config.choices import Quantization
from tunix_rt.config.section import Count, Execution, Text, Tokens, Unit, section


@section
class FreshModel:
    """A Llama-family decoder with weights drawn from `training.seed`; the vocabulary is the tokenizer's."""

    kind: Literal["fresh"]
    family: Literal["llama"]
    """Architecture."""
    hidden_size: Count
    """Width of the residual stream; a multiple of `num_attention_heads`."""
    intermediate_size: Count
    """Width of the feed-forward layers."""
    num_hidden_layers: Count
    """Number of layers."""
    num_attention_heads: Count
    """Query heads of each layer."""
    num_key_value_heads: Count
    """Heads for keys and values; fewer than query heads is grouped-query attention (arXiv 2305.13245)."""
    max_position_embeddings: Tokens
    """Longest text that the model is made for."""
    rope_theta: Annotated[float, Gt(0)]
    """Base of the rotary position embedding (arXiv 2104.09864); it should suit the length of the texts."""
    rms_norm_eps: Annotated[float, Gt(0)]
    """Added to the mean square inside each normalisation."""
    tie_word_embeddings: bool
    """Use the embedding as output head, too."""
    initializer_range: Annotated[float, Gt(0)]
    """Standard deviation of every matrix."""
    scale_residual_init: bool
    """Divide it by sqrt(2 * num_hidden_layers) for the two matrices that write into the residual stream."""

    def __post_init__(self) -> None:
        heads = self.num_attention_heads
        if self.hidden_size % heads:
            raise ValueError(f"num_attention_heads {heads} must divide hidden_size {self.hidden_size}")
        if heads % self.num_key_value_heads:
            raise ValueError(f"num_key_value_heads {self.num_key_value_heads} must divide num_attention_heads {heads}")
        if (self.hidden_size // heads) % 2:
            raise ValueError("hidden_size / num_attention_heads must be even (rotary position embedding)")


@section
class ScratchModel:
    """A model of any supported family with weights drawn from `training.seed`."""

    kind: Literal["scratch"]
    config: dict[str, Any]
    """Its config.json, from `model_type` on. The ids of special tokens are the tokenizer's, and so is `vocab_size`
    if not given; a larger one leaves rows of the embedding unused."""
    initializer_range: Annotated[float, Gt(0)]
    """Standard deviation of every matrix."""
    scale_residual_init: bool
    """Divide it by sqrt(2 * number of layers) for the two matrices that write into the residual stream."""


@section
class HubModel:
    """A model of the Hugging Face hub: safetensors only, pinned revision, no remote code."""

    kind: Literal["hub"]
    name: Text
    """Name on the hub, for example `Qwen/Qwen3-0.6B`."""
    revision: Text
    """A commit, tag or branch; only a commit is immutable."""


@section
class FolderModel:
    """A local folder in the Hugging Face layout; one with an adapter (PEFT's layout) is merged with the base that it
    names.
    """

    kind: Literal["folder"]
    path: Execution[Text]
    """The folder, with config.json, the weights and the tokenizer; relative to the working directory, or absolute."""


@section
class GgufModel:
    """A GGUF file, dequantised once into a model folder."""

    kind: Literal["gguf"]
    path: Execution[Text]
    """The file; a relative path is looked up in `package` if given, else in the working directory."""
    package: Execution[Text | None]
    """An installed Python package that contains the file."""
    extra: Execution[Text | None]
    """The extra of tunix_rt that installs `package`, named when it is missing."""


REGISTERED = re.compile(r"models:/([^/:@]+)/([1-9][0-9]*)")


def _pinned(uri: str) -> str:
    if REGISTERED.fullmatch(uri) is None:
        raise ValueError(f"{uri!r}: expected models:/NAME/VERSION with a number as version (an alias may move)")
    return uri


@section
class RegistryModel:
    """A version of a model in MLflow's registry, in the store that `tracking.uri` names; pinned by its content."""

    kind: Literal["registry"]
    uri: Execution[Annotated[str, AfterValidator(_pinned)]]
    """`models:/NAME/VERSION`"""


def _as_tuple(value: Any) -> Any:
    """Behind a validator that takes Python's values, a strict check does not take a list for a tuple."""
    return tuple(value) if isinstance(value, list) else value


@section
class RunModel:
    """The trained model of another experiment, which runs first where it is not finished (docs/stages.md).

    It counts by the identity of that training, so what changes no model there changes nothing here.
    """

    kind: Literal["run"]
    experiment: Text
    """A file of `conf/experiment`. It has the backend, hardware, tracking, seed and folders of the experiment that
    begins from it."""
    overrides: Annotated[tuple[Text, ...], BeforeValidator(_as_tuple)] = ()
    """What is changed in it, as on the command line."""
    dvc_path: Execution[Text] = "runs/dvc/first/model"
    """Where DVC's stage `first` leaves its model for the stages after it."""
    config: dict[str, Any] | None = None
    """Filled in: what those two declare, so that a record can be repeated when the files of `conf/` have changed."""

    @property
    def drawn(self) -> dict[str, Any]:
        """The section of the model that the first of all its experiments draws; empty if that is pretrained."""
        source: dict[str, Any] = {"kind": "run", "config": self.config}
        while source.get("kind") == "run":  # the check of a config that is wrong asks too
            source = ((source.get("config") or {}).get("model") or {}).get("source") or {}
        return source if source.get("kind") in ("fresh", "scratch") else {}


def parts_of(uri: str) -> tuple[str, str]:
    """(name, version) of `models:/NAME/VERSION`."""
    found = REGISTERED.fullmatch(uri)
    assert found is not None, uri
    return found.group(1), found.group(2)


def _spelt_out(value: Any) -> Any:
    """`model.source=models:/NAME/VERSION` is short for the full section."""
    return {"kind": "registry", "uri": value} if isinstance(value, str) else value


ModelSource = Annotated[
    FreshModel | ScratchModel | HubModel | FolderModel | GgufModel | RegistryModel | RunModel,
    Discriminator("kind"),
    BeforeValidator(_spelt_out),
]
TrainedModel = Annotated[
    HubModel | FolderModel | GgufModel | RegistryModel | RunModel, Discriminator("kind"), BeforeValidator(_spelt_out)
]
"""A source whose weights somebody has trained."""


@section
class LoraAdapter:
    """Low-rank additions to frozen matrices (arXiv 2106.09685), as `peft` has them."""

    kind: Literal["lora"]
    rank: Count
    """Rank of each addition."""
    alpha: Annotated[float, Gt(0)]
    """The addition is scaled by alpha / rank."""
    dropout: Annotated[float, Ge(0), Lt(1)]
    """Dropout rate on the inputs of the addition during training."""
    target: Literal["all-linear"] | Annotated[tuple[Text, ...], MinLen(1)]
    """Matrices that get an addition, by the family's own names (`q_proj`, `c_attn`, …); all of every layer."""
    rslora: bool
    """Scale by alpha / sqrt(rank) instead (arXiv 2312.03732)."""
    path: Execution[Text | None]
    """A folder in PEFT's layout to continue training from; null: B starts at zero, A is drawn from `training.seed`."""
    quantize: Quantization | None = None
    """How the matrices of the frozen layers are held (QLoRA, arXiv 2305.14314): `int8`, a scale per output channel;
    `nf4`, 4 bits, a scale per 64 values; null: in `backend.precision`."""

    def __post_init__(self) -> None:
        if len(set(self.target)) < len(self.target) and not isinstance(self.target, str):
            raise ValueError(f"target: {', '.join(self.target)}: each name once")


@section
class ModelConfig:
    """Where the initial weights come from, and which of them are trained."""

    source: ModelSource
    """Fresh weights of a declared shape, or those of a folder, a GGUF file, the hub, the registry or another
    experiment."""
    adapter: LoraAdapter | None
    """null: every weight is trained."""
    stop_tokens: tuple[Text, ...] = ()
    """Tokens at which generation stops too, for a chat template that ends a turn with another token than the
    tokenizer's end token."""


@section
class CharTokenizer:
    """One token per character, plus `<pad>` and `<end>`."""

    kind: Literal["char"]
    characters: Text | None
    """The alphabet; null: every character of the training traces."""
    added_tokens: tuple[Text, ...]
    """Texts that become one token wherever they occur, for example `<think>`."""


@section
class BpeTokenizer:
    """Byte-level BPE trained on the training traces, plus `<pad>` and `<end>`."""

    kind: Literal["bpe"]
    vocab_size: Annotated[int, Ge(258), Unit("tokens")]
    """Number of tokens, without `added_tokens`."""
    added_tokens: tuple[Text, ...]
    """Texts that become one token wherever they occur, for example `<think>`."""


@section
class PretrainedTokenizer:
    """The tokenizer in the model's own folder."""

    kind: Literal["pretrained"]
    added_tokens: tuple[Text, ...]
    """Missing ones are added, and the model's embeddings grow if they have no row for them."""


TokenizerConfig = Annotated[CharTokenizer | BpeTokenizer | PretrainedTokenizer, Discriminator("kind")]
