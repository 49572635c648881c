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
    "Claims": "verify",
    "ClaimsVerifier": "verify",
    "Closed": "errors",
    "ConfigurationError": "errors",
    "ConnectionFailed": "errors",
    "Decision": "verify.decision",
    "EnvironmentKey": "_store.keys",
    "FallbackOptions": "settings",
    "FileStore": "_store.file",
    "FreshnessOptions": "settings",
    "InvalidToken": "verify",
    "LocalResourcesExhausted": "errors",
    "MalformedAnswer": "errors",
    "MountedKey": "_store.keys",
    "NameNotResolved": "errors",
    "Overloaded": "errors",
    "ProviderUnavailable": "errors",
    "RemoteClaimsVerifier": "verify.remote",
    "RedisStore": "_store.redis",
    "ResilientAuthError": "errors",
    "ResilientCredential": "credential",
    "ResilientTransport": "downstream",
    "RetryOptions": "settings",
    "SealedStore": "_store.sealed",
    "ServerFailed": "errors",
    "Settings": "settings",
    "StoreUnavailable": "errors",
    "TLSFailed": "errors",
    "Throttled": "errors",
    "TokenDenied": "errors",
    "TransportOptions": "downstream",
    "VerificationUnavailable": "verify",
    "api_client": "downstream",
    "health": "health",
    "import_msal_cache": "_provider.imports",
    "isolate": "health",
    "reset": "health",
    "subscribe": "events",
    "wait_at_most": "_flow.acquire",
    "wrap": "_provider.msal_app",
}
_MODULES = ("aio", "downstream", "errors", "events", "msal", "verify")

__all__ = [
    "AcquisitionTimeout",
    "AsyncResilientTransport",
    "AttemptTimeout",
    "BearerAuth",
    "BreakerOptions",
    "CircuitOpen",
    "Claims",
    "ClaimsVerifier",
    "Closed",
    "ConfigurationError",
    "ConnectionFailed",
    "Decision",
    "EnvironmentKey",
    "FallbackOptions",
    "FileStore",
    "FreshnessOptions",
    "InvalidToken",
    "LocalResourcesExhausted",
    "MalformedAnswer",
    "MountedKey",
    "NameNotResolved",
    "Overloaded",
    "ProviderUnavailable",
    "RedisStore",
    "RemoteClaimsVerifier",
    "ResilientAuthError",
    "ResilientCredential",
    "ResilientTransport",
    "RetryOptions",
    "SealedStore",
    "ServerFailed",
    "Settings",
    "StoreUnavailable",
    "TLSFailed",
    "Throttled",
    "TokenDenied",
    "TransportOptions",
    "VerificationUnavailable",
    "__version__",
    "aio",
    "api_client",
    "downstream",
    "errors",
    "events",
    "health",
    "import_msal_cache",
    "isolate",
    "msal",
    "reset",
    "subscribe",
    "verify",
    "wait_at_most",
    "wrap",
]

if TYPE_CHECKING:
    from . import aio, downstream, errors, events, msal, verify
    from ._flow.acquire import wait_at_most
    from ._provider.imports import import_msal_cache
    from ._provider.msal_app import wrap
    from ._store.file import FileStore
    from ._store.keys import EnvironmentKey, MountedKey
    from ._store.redis import RedisStore
    from ._store.sealed import SealedStore
    from .credential import ResilientCredential
    from .downstream import AsyncResilientTransport, BearerAuth, ResilientTransport, TransportOptions, api_client
    from .errors import (
        AcquisitionTimeout,
        AttemptTimeout,
        CircuitOpen,
        Closed,
        ConfigurationError,
        ConnectionFailed,
        LocalResourcesExhausted,
        MalformedAnswer,
        NameNotResolved,
        Overloaded,
        ProviderUnavailable,
        ResilientAuthError,
        ServerFailed,
        StoreUnavailable,
        Throttled,
        TLSFailed,
        TokenDenied,
    )
    from .events import subscribe
    from .health import health, isolate, reset
    from .settings import BreakerOptions, FallbackOptions, FreshnessOptions, RetryOptions, Settings
    from .verify import Claims, ClaimsVerifier, InvalidToken, VerificationUnavailable
    from .verify.decision import Decision
    from .verify.remote import RemoteClaimsVerifier


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
