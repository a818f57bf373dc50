"""The memory server: what a model has read, kept as bookmarks, links and blocks, and found again when it matters.

Holds no torch and no transformers; meets the model side in `protos` only.
"""

__version__ = "0.1.0"
