"""Models drawn fresh and rows of random tokens: what is measured needs no download and no data.

Every position but those in padding is a target, which costs most. Legend: R rows of an update, T positions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.backends.memory import MemoryQuery
from tunix_rt.backends.mesh import MeshShape
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.choices import BackendName, Platform, Precision
from tunix_rt.config.execution import BackendConfig, HardwareConfig, MeshConfig
from tunix_rt.config.model import ScratchModel
from tunix_rt.config.optimizers import AdamWConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.folder import CONFIG, read_architecture
from tunix_rt.models.initialise import write_fresh

SIZES: dict[str, tuple[int, int, int, int, int, int, float]] = {
    # hidden, inner, layers, heads, key-value heads, vocabulary, spread of the weights
    "tiny": (64, 168, 2, 4, 2, 256, 0.2),
    "small": (256, 704, 4, 8, 4, 512, 0.1),
    "long": (256, 704, 2, 4, 2, 512, 0.1),
    "1 M": (128, 352, 4, 4, 4, 1024, 0.05),
    "10 M": (320, 864, 8, 5, 5, 1024, 0.05),
    "40 M": (512, 1408, 12, 8, 8, 4096, 0.02),
    "135 M": (576, 1536, 30, 9, 3, 49152, 0.02),
    "25 M": (512, 1408, 6, 8, 4, 8192, 0.02),
    "0.1 B": (768, 2048, 12, 12, 12, 32768, 0.02),
    "0.5 B": (896, 4864, 24, 14, 2, 151936, 0.02),
    "1.5 B": (1536, 8960, 28, 12, 2, 151936, 0.02),
}
"""Llamas with tied embeddings; 135 M has the shapes of SmolLM2 (arXiv 2502.02737), the last two of Qwen 2.5 (arXiv
2412.15115). Wide weights, where texts are compared: the likeliest token is then far ahead."""
END = 1
"""Token that ends an answer."""
RATE = 1e-3
"""Learning rate."""


@dataclass(frozen=True, slots=True)
class Run:
    """Training of a model on a mesh: everything that a process needs to do it."""

    backend: BackendName
    platform: Platform
    model: str
    """A key of SIZES."""
    devices: int = 1
    shard: int = 1
    """Devices that share the weights out among them; the others hold copies."""
    precision: Precision = "float32"
    rows: int = 8
    """R."""
    rows_at_once: int | None = None
    """Of a device; None: all."""
    length: int = 64
    """T."""
    segments: int = 1
    """Traces in each row, of uneven lengths."""
    steps: int = 3
    prompts: int = 6
    new_tokens: int = 8
    threads: int = 1
    """Of all processes together."""

    @property
    def mesh(self) -> str:
        """How it is called in tables."""
        if self.devices == 1:
            return "1"
        data = self.devices // self.shard
        shared = f"{self.shard} shard" if self.shard > 1 else ""
        return " x ".join(part for part in (f"{data} data" if data > 1 else "", shared) if part)

    @property
    def hardware(self) -> HardwareConfig:
        """The section of a config that says the same."""
        return HardwareConfig(
            platform=self.platform,
            devices=self.devices,
            mesh=MeshConfig(data=-1, shard=self.shard, tensor=1),
            local_batch_size=self.rows_at_once or "auto",
            threads=self.threads,
        )

    @property
    def engine(self) -> BackendConfig:
        """The section of a config that says with what."""
        return BackendConfig(name=self.backend, precision=self.precision)

    @property
    def setup(self) -> TrainingSetup:
        """AdamW. Its epsilon is large: of a gradient that is nothing but rounding a small one would make a step."""
        optimizer = AdamWConfig(
            kind="adamw",
            learning_rate=RATE,
            beta1=0.9,
            beta2=0.95,
            eps=1e-4,
            weight_decay=0.1,
            no_decay=("norms", "biases"),
        )
        return TrainingSetup(optimizer, 1.0, 0)

    @property
    def fold(self) -> Fold:
        """How its rows are laid out."""
        return Fold.of(self.rows, self.rows_at_once, MeshShape.of(self.hardware.mesh, self.devices).num_row_ranks)

    def query(self, architecture: Architecture, rows_at_once: int | None) -> MemoryQuery:
        """What `plan` asks about it, with so many rows of a device at once."""
        return MemoryQuery(
            architecture=architecture,
            adapter=None,
            quantize=None,
            backend=self.engine,
            optimizer=self.setup.optimizer,
            batches=(self.batch(0),),
            predicted=None,
            rows_at_once=rows_at_once,
            mesh=MeshShape.of(self.hardware.mesh, self.devices),
        )

    def batch(self, step: int) -> Batch:
        """The rows of an update: random tokens, each position with the next token as its target."""
        hidden, *_, vocabulary, _ = SIZES[self.model]
        random = np.random.default_rng([step, hidden])
        ids = random.integers(2, vocabulary, (self.rows, self.length + 1), dtype=np.int32)
        cuts = np.sort(random.permutation(np.arange(1, self.length))[: self.segments - 1])
        segment = np.searchsorted(cuts, np.arange(self.length), side="right").astype(np.int32)
        starts = np.concatenate([[0], cuts])[segment]
        positions = (np.arange(self.length) - starts).astype(np.int32)
        shape = (self.rows, 1)
        tokens, targets = (np.ascontiguousarray(part) for part in (ids[:, :-1], ids[:, 1:]))
        weights = np.ones((self.rows, self.length), np.float32)
        return Batch.supervised(tokens, targets, np.tile(positions, shape), np.tile(segment + 1, shape), weights)

    def to_json(self) -> dict[str, Any]:
        """The arguments that make it again."""
        return asdict(self)


def prompts(run: Run, count: int) -> list[Int32]:
    """Prompts of uneven lengths."""
    random = np.random.default_rng(5)
    vocabulary = SIZES[run.model][5]
    return [random.integers(2, vocabulary, 3 + 2 * number).astype(np.int32) for number in range(count)]


def greedy(max_new_tokens: int) -> GenerationConfig:
    """Decoding without chance, four prompts together."""
    return GenerationConfig(
        split="test",
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        top_k=None,
        top_p=None,
        num_return_sequences=1,
        batch_size=4,
        baseline=False,
        max_error_rate=0.0,
    )


def model_folder(root: Path, model: str) -> Path:
    """The folder of a model of SIZES, drawn if it is not there; complete, or absent."""
    folder = root / model.replace(" ", "")
    if not folder.exists():
        made = folder.with_suffix(".part")
        made.mkdir(parents=True, exist_ok=True)
        write_fresh(made, _source(model), SIZES[model][5], seed=0, pad_id=0, end_id=END)
        made.rename(folder)
    return folder


def _source(model: str) -> ScratchModel:
    hidden, inner, layers, heads, kv_heads, _, spread = SIZES[model]
    config = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    }
    return ScratchModel(kind="scratch", config=config, initializer_range=spread, scale_residual_init=True)


def architecture_of(folder: Path) -> Architecture:
    """Of a folder with weights."""
    assert (folder / CONFIG).exists()
    return read_architecture(folder)


def flops_per_token(shape: Architecture, length: int) -> float:
    """FLOPs of the model for a token that is trained on, in a row of one trace: 6 N + 6 L H d T.

    N: parameters that multiply, the output matrix among them (tied embeddings once, norms not counted worth saying).
    The second term is causal attention, each product of queries with keys and of scores with values counted for the
    half of the positions that a token sees: 2 products of 2 H d T / 2 FLOPs, three times for forward and backward
    (as arXiv 2204.02311, appendix B, which counts all positions). What is computed anew is not counted.
    """
    multiplied = shape.num_active_parameters - (0 if shape.tie_embeddings else shape.vocab_size * shape.hidden_size)
    return 6 * multiplied + 6 * shape.num_layers * shape.num_heads * shape.head_dim * length
