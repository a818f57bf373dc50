"""The only door to transformers: loading, attaching and fingerprinting models."""
