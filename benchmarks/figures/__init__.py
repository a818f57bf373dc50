"""Figures drawn from what benchmarks measured: benchmarks/results/*.json to docs/figures/*.svg. Measures nothing."""
