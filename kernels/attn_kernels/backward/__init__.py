"""The gradients of the fused forward pass, in Triton. Importing it makes the forward's operator differentiable."""

from attn_kernels.backward.launch import paged_backward

__all__ = ["paged_backward"]
