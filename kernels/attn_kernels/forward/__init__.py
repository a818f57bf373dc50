"""The fused forward pass and the attention that keys receive, in Triton."""

from attn_kernels.forward.launch import attend
from attn_kernels.forward.mass import received

__all__ = ["attend", "received"]
