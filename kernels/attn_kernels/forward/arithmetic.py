# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Products and rounding that mean the same compiled and interpreted.

Triton's interpreter holds bfloat16 as its bits: it multiplies those bits as integers, and it truncates where a GPU
rounds to nearest even. Both are done here in float32 and integers when interpreted, so that tests on a CPU check the
numbers that a GPU gives.
"""

import triton
import triton.language as tl

# Fixed when triton is imported, as interpretation itself is.
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def product(a, b, total):
    """total + a @ b, summed in float32; float32 operands are multiplied in full, never in tf32."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc=total, input_precision="ieee")


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """float32 to `dtype`, to nearest even."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        carry = 0x7FFF + ((bits >> 16) & 1)
        # A NaN's bits must not be carried out of.
        high = tl.where(x == x, bits + carry, bits | 0x400000) >> 16
        return high.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return x.to(dtype)
