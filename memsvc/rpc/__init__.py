"""The wire: services of `protos` over sessions.

Owns what a call is: streams, credits, pieces of blocks, shared memory, statuses. Nothing of it outlives the process.
Must not know: how a session stores or searches.
"""
