"""MSAL's client of a token endpoint, with the credential of the moment in each request."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from msal.application import _ClientWithCcsRoutingInfo

from ..._engine.single_flight import Flight
from ..._wire.exchange_context import current
from .sources import Given
from .trial import Rotation, is_refusal

__all__ = ["STAND_IN", "RotatingClient", "Signers", "rotating", "told"]


def _never_sent() -> str:
    raise AssertionError("a request went out without the credential of the moment")


#: What MSAL's constructor is given in place of a credential that is renewed.
STAND_IN = {"client_assertion": _never_sent}
#: Token endpoints of one application for which a signer is kept: its own, and those of its authority's other names.
_MOST_ENDPOINTS = 16

Build = Callable[[Any], Any]


class RotatingClient(_ClientWithCcsRoutingInfo):  # type: ignore[misc]
    """Authenticate with the newest credential, and with the one before it where the provider doesn't take that."""

    _ra_rotation: Rotation
    _ra_signers: Signers

    def _obtain_token(self, grant_type: str, *args: Any, **kwargs: Any) -> Any:
        exchange_context = current()
        flight = None if exchange_context is None else exchange_context.flight
        first: Any = None
        for given in _candidates(self._ra_rotation, flight):
            attempt = copy.copy(self)
            attempt.client_assertion, attempt.default_body = self._ra_signers.find(given, flight)
            answer = super(RotatingClient, attempt)._obtain_token(grant_type, *args, **kwargs)
            if not is_refusal(answer):
                self._ra_rotation.took(given)
                return answer
            self._ra_rotation.refused(given, str(answer["error"]))
            first = first or answer
        return first


class Signers:
    """Make of a credential what MSAL sends to one token endpoint, and keep it until there is another one."""

    def __init__(self, build: Build, kept: dict[str, tuple[Given, Any, dict[str, Any]]], endpoint: str) -> None:
        self._build, self._kept, self._endpoint = build, kept, endpoint

    def find(self, given: Given, flight: Flight | None) -> tuple[Any, dict[str, Any]]:
        """Return MSAL's `client_assertion` and `default_body`."""
        found = self._kept.get(self._endpoint)
        if found is None or found[0].credential is not given.credential:
            built = self._build(given.credential)
            found = given, built.client_assertion, built.default_body
            if len(self._kept) >= _MOST_ENDPOINTS:
                self._kept.clear()
            self._kept[self._endpoint] = found
        assertion = found[1]
        if flight is not None and callable(assertion):
            assertion = told(assertion, flight)
        return assertion, found[2]


def rotating(clients: tuple[Any, Any], rotation: Rotation, signers: Signers) -> tuple[Any, Any]:
    """Have the clients that MSAL has just built, the second of which may be None, take the credential of the moment."""
    for client in clients:
        if client is not None:
            client.__class__ = RotatingClient
            client._ra_rotation, client._ra_signers = rotation, signers
    return clients


def _candidates(rotation: Rotation, flight: Flight | None) -> list[Given]:
    if flight is None:
        return rotation.candidates()
    flight.calls = rotation.source.name
    try:
        return rotation.candidates()
    finally:
        flight.calls = None


def told(assertion: Callable[..., Any], flight: Flight) -> Callable[..., Any]:
    """Have a flight say, while it waits for it, that a function that makes assertions hasn't come back."""
    name = str(getattr(assertion, "link", "the client_assertion function"))

    @functools.wraps(assertion)  # MSAL looks at its signature
    def make(*args: Any, **kwargs: Any) -> Any:
        flight.calls = name
        try:
            return assertion(*args, **kwargs)
        finally:
            flight.calls = None

    return make
