"""OpenTelemetry: what becomes of a request, as one trace (docs/operations.md)."""
