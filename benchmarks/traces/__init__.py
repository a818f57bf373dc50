"""Traces: what a real model gives for a text, saved once, so that memory is measured in seconds and without the model.

format    what a trace is on disk, and reading it
writer    writing one
kinds     the facts that are planted, by kind
make      running the model: `python -m benchmarks.traces.make`
"""
