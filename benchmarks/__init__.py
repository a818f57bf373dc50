"""Measurements, one file a question; each writes its figures through `benchmarks.summary`."""
