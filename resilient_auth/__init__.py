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
    "Decision": "claims_service.decision",
    "EnvironmentKey": "_store.sealing.keys",
    "FallbackOptions": "settings",
    "FileStore": "_store.file",
    "FreshnessOptions": "settings",
    "InvalidToken": "verify",
    "LocalResourcesExhausted": "errors",
    "MalformedAnswer": "errors",
    "MountedKey": "_store.sealing.keys",
    "NameNotResolved": "errors",
    "Overloaded": "errors",
    "ProviderUnavailable": "errors",
    "RemoteClaimsVerifier": "claims_service.remote",
    "RedisStore": "_store.redis.store",
    "ResilientAuthError": "errors",
    "ResilientCredential": "credential",
    "ResilientTransport": "downstream",
    "RetryOptions": "settings",
    "SealedStore": "_store.sealing.sealed",
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
    "import_msal_cache": "_msal.cache_import",
    "isolate": "health",
    "reset": "health",
    "subscribe": "events",
    "wait_at_most": "_engine.acquire",
    "wrap": "_msal.wrapped",
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
    from ._engine.acquire import wait_at_most
    from ._msal.cache_import import import_msal_cache
    from ._msal.wrapped import wrap
    from ._store.file import FileStore
    from ._store.redis.store import RedisStore
    from ._store.sealing.keys import EnvironmentKey, MountedKey
    from ._store.sealing.sealed import SealedStore
    from .claims_service.decision import Decision
    from .claims_service.remote import RemoteClaimsVerifier
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
