"""Keep an application authenticated while its identity provider is slow, throttling, broken or gone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# The public names, each with the module that it is loaded from when it is first used: importing this package must cost
# next to nothing. A name without a module is one.
_PUBLIC = {
    "AcquisitionTimeout": "errors",
    "AnyOf": "verify",
    "AssertionUnavailable": "errors",
    "AsyncResilientTransport": "downstream",
    "AttemptTimeout": "errors",
    "BearerAuth": "downstream",
    "BreakerOptions": "settings",
    "CertificateFile": "_msal.rotation.sources",
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
    "RedisStore": "_store.redis.store",
    "RemoteClaimsVerifier": "claims_service.remote",
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
    "aio": "",
    "api_client": "downstream",
    "assertion_from_application": "_credentials.assertions",
    "assertion_from_file": "_credentials.assertions",
    "assertion_from_managed_identity": "_credentials.assertions",
    "callouts": "",
    "downstream": "",
    "errors": "",
    "events": "",
    "forecast": "health",
    "get_bearer_token_provider": "credential",
    "health": "health",
    "import_msal_cache": "_msal.cache_import",
    "isolate": "health",
    "msal": "",
    "reset": "health",
    "signin": "",
    "subscribe": "events",
    "telemetry": "",
    "verify": "",
    "wait_at_most": "_engine.acquire",
    "wrap": "_msal.wrapped",
}

__all__ = sorted(["__version__", *_PUBLIC])

if TYPE_CHECKING:
    # For type checkers, which read no table; tests/test_import.py compares the two.
    from . import aio as aio
    from . import callouts as callouts
    from . import downstream as downstream
    from . import errors as errors
    from . import events as events
    from . import msal as msal
    from . import signin as signin
    from . import telemetry as telemetry
    from . import verify as verify
    from ._credentials.assertions import assertion_from_application as assertion_from_application
    from ._credentials.assertions import assertion_from_file as assertion_from_file
    from ._credentials.assertions import assertion_from_managed_identity as assertion_from_managed_identity
    from ._engine.acquire import wait_at_most as wait_at_most
    from ._msal.cache_import import import_msal_cache as import_msal_cache
    from ._msal.rotation.sources import CertificateFile as CertificateFile
    from ._msal.wrapped import wrap as wrap
    from ._store.file import FileStore as FileStore
    from ._store.redis.store import RedisStore as RedisStore
    from ._store.sealing.keys import EnvironmentKey as EnvironmentKey
    from ._store.sealing.keys import MountedKey as MountedKey
    from ._store.sealing.sealed import SealedStore as SealedStore
    from .claims_service.decision import Decision as Decision
    from .claims_service.remote import RemoteClaimsVerifier as RemoteClaimsVerifier
    from .credential import ResilientCredential as ResilientCredential
    from .credential import get_bearer_token_provider as get_bearer_token_provider
    from .downstream import AsyncResilientTransport as AsyncResilientTransport
    from .downstream import BearerAuth as BearerAuth
    from .downstream import ResilientTransport as ResilientTransport
    from .downstream import TransportOptions as TransportOptions
    from .downstream import api_client as api_client
    from .errors import AcquisitionTimeout as AcquisitionTimeout
    from .errors import AssertionUnavailable as AssertionUnavailable
    from .errors import AttemptTimeout as AttemptTimeout
    from .errors import CircuitOpen as CircuitOpen
    from .errors import Closed as Closed
    from .errors import ConfigurationError as ConfigurationError
    from .errors import ConnectionFailed as ConnectionFailed
    from .errors import LocalResourcesExhausted as LocalResourcesExhausted
    from .errors import MalformedAnswer as MalformedAnswer
    from .errors import NameNotResolved as NameNotResolved
    from .errors import Overloaded as Overloaded
    from .errors import ProviderUnavailable as ProviderUnavailable
    from .errors import ResilientAuthError as ResilientAuthError
    from .errors import ServerFailed as ServerFailed
    from .errors import StoreUnavailable as StoreUnavailable
    from .errors import Throttled as Throttled
    from .errors import TLSFailed as TLSFailed
    from .errors import TokenDenied as TokenDenied
    from .events import subscribe as subscribe
    from .health import forecast as forecast
    from .health import health as health
    from .health import isolate as isolate
    from .health import reset as reset
    from .settings import BreakerOptions as BreakerOptions
    from .settings import FallbackOptions as FallbackOptions
    from .settings import FreshnessOptions as FreshnessOptions
    from .settings import RetryOptions as RetryOptions
    from .settings import Settings as Settings
    from .verify import AnyOf as AnyOf
    from .verify import Claims as Claims
    from .verify import ClaimsVerifier as ClaimsVerifier
    from .verify import InvalidToken as InvalidToken
    from .verify import VerificationUnavailable as VerificationUnavailable


def _load(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _PUBLIC[name]
    if not home:
        return importlib.import_module(f"{__name__}.{name}")
    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


# Under its own name, type checkers would take the package to have every name that anybody asks for.
globals()["__getattr__"] = _load


def __dir__() -> list[str]:
    return sorted(__all__)
