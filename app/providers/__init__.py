"""AI providers behind one protocol (`streams.dispatch.ports.Provider`), each through its SDK or over HTTP."""

from app.providers.registry import build_providers

__all__ = ["build_providers"]
