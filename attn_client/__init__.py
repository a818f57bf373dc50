"""The model side: a Hugging Face model that reads far past its window through a memory server.

`attn_client.hf.attach.attach` gives a model a memory; `attn_client.memory` is the connection alone, without torch.
"""

__version__ = "0.1.0"
