"""What the kernels refuse, as one tree.

    AttentionKernelError
    |-- UnsupportedShape      sizes that do not fit each other, or a head size no kernel is built for
    |-- UnsupportedDtype      element types that do not fit
    |-- DeviceMismatch        tensors of one call lie on several devices
    |-- UnsupportedGradient   a gradient is wanted that FUSED does not compute
    |-- NotFinite             a vector to be kept holds an infinity or NaN
    `-- FusedUnavailable      FUSED was asked for where it cannot run; nothing falls back to REFERENCE

Invariant: a message is one line that names the argument, what was expected and what came.
"""


class AttentionKernelError(ValueError):
    """Root of the tree."""


class UnsupportedShape(AttentionKernelError):
    """Sizes that do not fit each other, or a head size no kernel is built for."""


class UnsupportedDtype(AttentionKernelError):
    """An element type that the argument may not have."""


class DeviceMismatch(AttentionKernelError):
    """Tensors of one call lie on several devices."""


class UnsupportedGradient(AttentionKernelError):
    """A gradient of rotary tables or of quantised pages is wanted of FUSED, which would leave it out."""


class NotFinite(AttentionKernelError):
    """A vector that is to be kept holds an infinity or NaN."""


class FusedUnavailable(AttentionKernelError):
    """FUSED was asked for without Triton, or on a CPU outside Triton's interpreter."""
