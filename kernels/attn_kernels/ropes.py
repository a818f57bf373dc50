"""Rotary tables by recipe: plain, position interpolation, NTK, YaRN, and none at all.

The kernels take whatever tables they are given; which positions a model understands is decided here. All are made in
float64 and rounded once. `trained` is the number of positions a model was trained to, `factor` how many times farther
it is to read.

Source: position interpolation (arXiv 2306.15595); NTK-aware scaling (of the base, so that the lowest frequency is
interpolated and the highest is not); YaRN (arXiv 2309.00071), as transformers computes it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attn_kernels.errors import UnsupportedShape
from attn_kernels.records import Rope


@dataclass(frozen=True)
class Rotary:
    """What a model's plain rotary embedding is: positions in a table, head size, base of its frequencies."""

    positions: int
    dim: int
    base: float

    def __post_init__(self) -> None:
        """Check what all recipes rely on.

        Raises:
            UnsupportedShape: No position, an odd head size, or a base that gives no falling frequencies.
        """
        if self.positions < 1 or self.dim < 2 or self.dim % 2 or not self.base > 1:
            got = f"positions {self.positions}, dim {self.dim}, base {self.base}"
            raise UnsupportedShape(f"rotary: expected positions >= 1, an even dim >= 2 and base > 1, got {got}")


def plain(rotary: Rotary) -> Rope:
    """The embedding as trained."""
    return _table(rotary, _frequency(rotary, rotary.base), 1.0)


def interpolated(rotary: Rotary, factor: float) -> Rope:
    """Position interpolation: all frequencies `factor` times lower."""
    return _table(rotary, _frequency(rotary, rotary.base) / _checked(factor), 1.0)


def ntk(rotary: Rotary, factor: float) -> Rope:
    """NTK-aware scaling: a base at which the lowest frequency is `factor` times lower and the highest the same.

    Raises:
        UnsupportedShape: A factor below 1, or a head size of 2, whose one frequency is both.
    """
    if rotary.dim < 4:
        raise UnsupportedShape(f"dim: expected at least 4 for NTK scaling, got {rotary.dim}")
    base = rotary.base * _checked(factor) ** (rotary.dim / (rotary.dim - 2))
    return _table(rotary, _frequency(rotary, base), 1.0)


def yarn(rotary: Rotary, factor: float, trained: int, fast_turns: float = 32.0, slow_turns: float = 1.0) -> Rope:
    """YaRN: low frequencies interpolated, high ones kept, a ramp between, and tables scaled to sharpen the softmax.

    Args:
        rotary: The plain embedding.
        factor: At least 1.
        trained: Positions trained to.
        fast_turns: Frequencies that turn more often than this over `trained` are kept.
        slow_turns: Those that turn less often are interpolated.
    """
    kept = _frequency(rotary, rotary.base)
    low = max(math.floor(_channel(rotary, trained, fast_turns)), 0)
    high = min(math.ceil(_channel(rotary, trained, slow_turns)), rotary.dim - 1)
    # A ramp of no width would divide by 0.
    width = max(high - low, 0.001)
    slow = ((torch.arange(rotary.dim // 2, dtype=torch.float64) - low) / width).clamp(0, 1)
    frequency = kept * (1 - slow) + kept / _checked(factor) * slow
    return _table(rotary, frequency, 0.1 * math.log(factor) + 1.0)


def unrotated(positions: int, dim: int) -> Rope:
    """NoPE: the identity, for layers without positions."""
    return Rope(torch.ones(positions, dim), torch.zeros(positions, dim))


def _frequency(rotary: Rotary, base: float) -> Tensor:
    return base ** -(torch.arange(0, rotary.dim, 2, dtype=torch.float64) / rotary.dim)


def _channel(rotary: Rotary, trained: int, turns: float) -> float:
    """The channel, not whole, whose frequency turns so often over the trained positions."""
    return rotary.dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(rotary.base))


def _checked(factor: float) -> float:
    if not factor >= 1:
        raise UnsupportedShape(f"factor: expected at least 1, got {factor}")
    return factor


def _table(rotary: Rotary, frequency: Tensor, scale: float) -> Rope:
    angle = torch.outer(torch.arange(rotary.positions, dtype=torch.float64), frequency).repeat(1, 2)
    return Rope((angle.cos() * scale).float(), (angle.sin() * scale).float())
