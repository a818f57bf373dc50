"""The fused forward pass, in Triton. The only package that imports it."""

from attn_kernels.forward.launch import attend

__all__ = ["attend"]
