"""Keep an application authenticated while its identity provider is slow, throttling, broken or gone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Loaded when first used: importing this package must cost next to nothing.
_HOMES = {
    "AcquisitionTimeout": "errors",
    "AsyncResilientTransport": "downstream",
    "AttemptTimeout": "errors",
    "BearerAuth": "downstream",
    "BreakerOptions": "settings",
    "CircuitOpen": "errors",
    "Closed": "errors",
    "ConfigurationError": "errors",
    "ConnectionFailed": "errors",
    "FallbackOptions": "settings",
    "FreshnessOptions": "settings",
    "MalformedAnswer": "errors",
    "NameNotResolved": "errors",
    "Overloaded": "errors",
    "ProviderUnavailable": "errors",
    "ResilientAuthError": "errors",
    "ResilientCredential": "credential",
    "ResilientTransport": "downstream",
    "RetryOptions": "settings",
    "ServerFailed": "errors",
    "Settings": "settings",
    "TLSFailed": "errors",
    "Throttled": "errors",
    "TokenDenied": "errors",
    "TransportOptions": "downstream",
    "api_client": "downstream",
    "health": "health",
    "isolate": "health",
    "reset": "health",
    "subscribe": "events",
    "wait_at_most": "_flow.acquire",
    "wrap": "_provider.msal_app",
}
_MODULES = ("aio", "downstream", "errors", "events", "msal")

__all__ = [
    "AcquisitionTimeout",
    "AsyncResilientTransport",
    "AttemptTimeout",
    "BearerAuth",
    "BreakerOptions",
    "CircuitOpen",
    "Closed",
    "ConfigurationError",
    "ConnectionFailed",
    "FallbackOptions",
    "FreshnessOptions",
    "MalformedAnswer",
    "NameNotResolved",
    "Overloaded",
    "ProviderUnavailable",
    "ResilientAuthError",
    "ResilientCredential",
    "ResilientTransport",
    "RetryOptions",
    "ServerFailed",
    "Settings",
    "TLSFailed",
    "Throttled",
    "TokenDenied",
    "TransportOptions",
    "__version__",
    "aio",
    "api_client",
    "downstream",
    "errors",
    "events",
    "health",
    "isolate",
    "msal",
    "reset",
    "subscribe",
    "wait_at_most",
    "wrap",
]

if TYPE_CHECKING:
    from . import aio, downstream, errors, events, msal
    from ._flow.acquire import wait_at_most
    from ._provider.msal_app import wrap
    from .credential import ResilientCredential
    from .downstream import AsyncResilientTransport, BearerAuth, ResilientTransport, TransportOptions, api_client
    from .errors import (
        AcquisitionTimeout,
        AttemptTimeout,
        CircuitOpen,
        Closed,
        ConfigurationError,
        ConnectionFailed,
        MalformedAnswer,
        NameNotResolved,
        Overloaded,
        ProviderUnavailable,
        ResilientAuthError,
        ServerFailed,
        Throttled,
        TLSFailed,
        TokenDenied,
    )
    from .events import subscribe
    from .health import health, isolate, reset
    from .settings import BreakerOptions, FallbackOptions, FreshnessOptions, RetryOptions, Settings


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
