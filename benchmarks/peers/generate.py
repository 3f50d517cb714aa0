"""The `generate` method of `transformers`: batches padded on the left, a key-value cache, greedy, float32."""

from __future__ import annotations

from typing import Any, Literal

from benchmarks.generation_case import GenerationCase
from benchmarks.race import THREADS, Clock, Lap, Ready


def generate(plan: GenerationCase, order: Literal["data", "by_length"]) -> Ready:
    """Laps of `generate`; `by_length`: prompts of one length together, so that nearly nothing is padded."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    model = AutoModelForCausalLM.from_pretrained(plan.model, dtype=torch.float32)
    size = plan.generation.batch_size
    prompts = plan.prompts if order == "data" else tuple(sorted(plan.prompts, key=len))
    batches = [prompts[start : start + size] for start in range(0, len(prompts), size)]

    def lap() -> Lap:
        clock = Clock()
        lengths = [length for batch in batches for length in _answer(model, batch, plan.generation.max_new_tokens)]
        stopped = sum(length < plan.generation.max_new_tokens for length in lengths)
        return clock.lap(sum(lengths), stopped=stopped)

    return lap


def _answer(model: Any, prompts: tuple[tuple[int, ...], ...], max_new_tokens: int) -> list[int]:
    """Number of generated tokens before the stop token, for each prompt."""
    import torch

    width = max(map(len, prompts))
    pad = model.generation_config.pad_token_id or 0
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    real = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    made = model.generate(ids, attention_mask=real, do_sample=False, use_cache=True, max_new_tokens=max_new_tokens)
    stop = model.generation_config.eos_token_id  # one id, several, or None
    stops = torch.isin(made[:, width:], torch.tensor([] if stop is None else stop, dtype=torch.long))
    lengths = torch.where(stops.any(1), stops.int().argmax(1), stops.shape[1])
    return [int(length) for length in lengths]
