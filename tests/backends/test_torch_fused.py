"""Gradients written by hand against those of autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tunix_rt.backends.torch import fused

ANGLES = torch.linspace(-3, 3, 2 * 5 * 4).view(2, 5, 1, 4)
TURN = torch.cat((ANGLES.cos(),) * 2, -1), torch.cat((-ANGLES.sin(), ANGLES.sin()), -1)


def spread_out(x: Tensor) -> Tensor:
    """`x` with the memory of heads before that of positions, as attention's gradients have it."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def gradients(function: Callable[..., Tensor], slope: Tensor, given: tuple[Tensor, ...]) -> list[Any]:
    """The value and the gradients of what is given."""
    inputs = [x.detach().clone().requires_grad_() for x in given]
    made = function(*inputs)
    made.backward(slope)  # type: ignore[no-untyped-call]
    return [made.detach(), *(x.grad for x in inputs)]


@pytest.mark.parametrize("laid_out", [torch.clone, spread_out])
def test_gradients_equal_those_of_autograd(laid_out: Callable[[Tensor], Tensor]) -> None:
    draw = torch.Generator().manual_seed(0)
    x, slope = (laid_out(torch.randn(2, 5, 3, 8, generator=draw)) for _ in range(2))
    weight = torch.randn(8, generator=draw)

    ours = gradients(lambda x, w: fused.rms_norm(x, w, 1e-2), slope, (x, weight))
    theirs = gradients(lambda x, w: functional.rms_norm(x, (8,), w, 1e-2), slope, (x, weight))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)

    cos, sin = TURN
    ours = gradients(lambda x: fused.rotate(x, cos, sin), slope, (x,))
    theirs = gradients(lambda x: x * cos + x.roll(4, -1) * sin, slope, (x,))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_rotation_turns_each_pair_by_its_angle() -> None:
    """As complex numbers, of which the first half has the real parts."""
    positions, frequencies = torch.tensor([[0, 3]]), torch.tensor([1.0, 0.1])
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(1, 2, 1, 4)
    found = fused.rotate(x, *fused.rotation(positions, frequencies, 2.0))[0, 1, 0]
    expected = torch.complex(x[0, 1, 0, :2], x[0, 1, 0, 2:]) * torch.polar(torch.tensor(2.0), 3 * frequencies)
    torch.testing.assert_close(torch.complex(found[:2], found[2:]), expected)
