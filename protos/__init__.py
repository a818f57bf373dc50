"""The wire format that `memsvc` and `attn_client` share: generated stubs and the numpy codec. Imports neither."""
