"""The kernels run compiled where there is a CUDA device, and in Triton's interpreter elsewhere: the same tests."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton
import triton.language as tl

if not torch.cuda.is_available() and isinstance(tl.cdiv, triton.JITFunction):
    raise pytest.UsageError("expected TRITON_INTERPRET=1 before triton is imported, got triton imported without it")


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory handed out by `new_empty` holds NaN, so that an output that nothing wrote is seen."""
    fresh = torch.Tensor.new_empty

    def new_nan(self: torch.Tensor, *size: object, **options: object) -> torch.Tensor:
        made = fresh(self, *size, **options)  # type: ignore[arg-type]
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch.Tensor, "new_empty", new_nan)
