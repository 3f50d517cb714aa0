"""What Tunix's models cannot compute is refused when the folder is read, with the reason; nothing is approximated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tunix.conftest import CONFIGS, GEMMA3, write
from tunix_rt.backends.interface import Backend
from tunix_rt.backends.tunix.decoder import KINDS
from tunix_rt.config.choices import BACKENDS
from tunix_rt.errors import ModelError

MISTRAL = {"model_type": "mistral", "sliding_window": None}
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "a family": ({"model_type": "olmo2"}, "backend=tunix computes gemma3_text, llama, mistral, qwen2, qwen3"),
    "scaled positions": (
        CONFIGS["llama"] | {"rope_parameters": LINEAR},
        "Qwen2 cannot .*layers.0..rope.scaling: the model's 'linear', Tunix's 'default'",
    ),
    "a window": (MISTRAL | {"sliding_window": 8}, "layers.0..window: the model's 8, Tunix's None"),
    "biases": (CONFIGS["llama"] | {"mlp_bias": True}, "mlp_bias: the model's True, Tunix's False"),
    "another base": (
        CONFIGS["qwen3"] | {"rope_theta": 5e6},
        "Qwen3 cannot .*layers.0..rope.theta: the model's 5000000.0, Tunix's 1000000.0",
    ),
    "another pattern": (GEMMA3 | {"num_hidden_layers": 4, "sliding_window_pattern": 3}, "layers.2..rope.theta"),
    "an epsilon": (GEMMA3 | {"rms_norm_eps": 1e-5}, "norm_eps: the model's 1e-05, Tunix's 1e-06"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_differs(name: str, both: dict[str, Backend], tmp_path: Path) -> None:
    config, message = OTHERS[name]
    folder = write(tmp_path, **config)
    assert both["jax"].load(folder, None) is not None, "it is sound"
    with pytest.raises(ModelError, match=f"(?s)config.json.*{message}") as raised:
        both["tunix"].load(folder, None)
    assert "use backend=jax" in str(raised.value)


def test_a_mistral_without_window_is_a_llama(both: dict[str, Backend], tmp_path: Path) -> None:
    assert both["tunix"].load(write(tmp_path, **MISTRAL), None) is not None


def test_gemma_in_half_precision(models: dict[str, Path], make: Callable[..., Backend]) -> None:
    with pytest.raises(ModelError, match=r"Gemma3 computes in the precision of its weights: backend.precision=float32"):
        make("tunix", "bfloat16").load(models["gemma3, heads alike"], None)


def test_the_config_check_knows_the_same_families() -> None:
    assert BACKENDS["tunix"].families == tuple(sorted(KINDS))
