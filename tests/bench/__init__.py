"""Measurements: `make bench` prints one table and writes build/bench.json (docs/benchmarks.md)."""
