"""Traces of a broker for OpenTelemetry, off unless asked for (docs/spec/broker.md §8)."""
