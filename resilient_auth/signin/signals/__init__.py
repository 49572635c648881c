"""Security events that a provider pushes: sessions revoked, credentials changed, accounts disabled (Shared Signals)."""

from .receiver import SignalsReceiver

__all__ = ["SignalsReceiver"]
