"""What the package raises: caught as callers of MSAL catch it, told without secrets, and the same after a pickle."""

from __future__ import annotations

import copy
import pickle
from itertools import chain

import pytest
import requests

import resilient_auth
from resilient_auth import errors
from resilient_auth.errors import (
    AcquisitionTimeout,
    AttemptTimeout,
    Closed,
    ConfigurationError,
    ConnectionFailed,
    NameNotResolved,
    ProviderUnavailable,
    ResilientAuthError,
    TLSFailed,
)

KINDS = [getattr(errors, name) for name in errors.__all__]
UNAVAILABLE = [kind for kind in KINDS if issubclass(kind, ProviderUnavailable)]


def test_codes_are_stable_and_unique() -> None:
    """Dashboards and alerts are built on them: changing one breaks somebody."""
    assert {kind.__name__: kind.code for kind in KINDS} == {
        "ResilientAuthError": "resilient_auth_error",
        "ConfigurationError": "configuration",
        "Closed": "closed",
        "ProviderUnavailable": "provider_unavailable",
        "CircuitOpen": "circuit_open",
        "Throttled": "throttled",
        "AcquisitionTimeout": "acquisition_timeout",
        "AttemptTimeout": "attempt_timeout",
        "ConnectionFailed": "connection_failed",
        "NameNotResolved": "name_not_resolved",
        "TLSFailed": "tls_failed",
        "ServerFailed": "server_failed",
        "MalformedAnswer": "malformed_answer",
        "AssertionUnavailable": "assertion_unavailable",
        "Overloaded": "overloaded",
        "LocalResourcesExhausted": "local_resources",
        "TokenDenied": "token_denied",
        "StoreUnavailable": "store_unavailable",
    }
    assert len({kind.code for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_a_public_name(kind: type[ResilientAuthError]) -> None:
    """`except ra.CircuitOpen` works, and everything of ours is a ResilientAuthError."""
    assert issubclass(kind, ResilientAuthError)
    assert getattr(resilient_auth, kind.__name__) is kind


@pytest.mark.parametrize("kind", UNAVAILABLE)
def test_a_provider_that_gives_no_answer_is_a_request_exception(kind: type[ProviderUnavailable]) -> None:
    """What callers of MSAL catch today still catches it."""
    with pytest.raises(requests.RequestException):
        raise kind("no answer")


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (AcquisitionTimeout, requests.Timeout),
        (AttemptTimeout, requests.Timeout),
        (ConnectionFailed, requests.ConnectionError),
        (NameNotResolved, requests.ConnectionError),
        (NameNotResolved, ConnectionFailed),
        (TLSFailed, requests.exceptions.SSLError),
        (ConfigurationError, ValueError),
        (Closed, RuntimeError),
    ],
)
def test_the_tree_is_as_drawn(kind: type[Exception], also: type[Exception]) -> None:
    """Each kind is also what requests or Python would have raised."""
    assert issubclass(kind, also)


@pytest.mark.parametrize("kind", [ConfigurationError, Closed])
def test_the_callers_mistakes_arent_network_errors(kind: type[Exception]) -> None:
    """Retrying them would be of no use."""
    assert not issubclass(kind, requests.RequestException)


@pytest.mark.parametrize("kind", UNAVAILABLE)
@pytest.mark.parametrize("retry_after", [None, 12.5])
def test_an_error_survives_pickle_and_copy(kind: type[ProviderUnavailable], retry_after: float | None) -> None:
    """A task queue may carry it to another process."""
    error = kind("the host broke", authority="https://login.example", retry_after=retry_after)
    copies = chain(
        (pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)),
        (copy.copy(error), copy.deepcopy(error)),
    )
    for other in copies:
        assert type(other) is kind
        assert (other.message, other.authority, other.retry_after) == (
            "the host broke",
            "https://login.example",
            retry_after,
        )
        assert str(other) == "the host broke"
        assert other.code == error.code


@pytest.mark.parametrize("kind", [ConnectionFailed, NameNotResolved])
def test_a_copy_remembers_that_nothing_was_sent(kind: type[ConnectionFailed]) -> None:
    """Whether a code may be redeemed again depends on it."""
    error = kind("refused")
    error.sent = False
    assert copy.copy(error).sent is False


@pytest.mark.parametrize("kind", [ConfigurationError, Closed])
def test_the_callers_mistakes_survive_pickle_too(kind: type[ResilientAuthError]) -> None:
    """With their message."""
    other = pickle.loads(pickle.dumps(kind("wait must be positive")))
    assert type(other) is kind
    assert str(other) == "wait must be positive"


@pytest.mark.parametrize("kind", UNAVAILABLE)
def test_the_repr_tells_the_message_and_the_wait(kind: type[ProviderUnavailable]) -> None:
    """And no more than that."""
    error = kind("it broke", authority="https://login.example", retry_after=3.0)
    assert repr(error) == f"{kind.__name__}('it broke', retry_after=3.0)"
    assert error.response is None
    assert error.request is None
