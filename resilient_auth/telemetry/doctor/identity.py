"""A managed identity: is its endpoint there, and does it give a token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ... import msal
from ...errors import MalformedAnswer, ProviderUnavailable
from .finding import Finding, error, ok
from .patient import Patient, address_of
from .provider import patience
from .rules import is_of_application

__all__ = ["check_managed_identity"]

_METADATA: Final = "http://169.254.169.254"
_RESOURCE: Final = "https://management.azure.com/"


def check_managed_identity(patient: Patient) -> Iterator[Finding]:
    """Ask the platform's endpoint for a token, as the application would."""
    setup, environ = patient.setup, patient.environ
    if "managed_identity" not in setup.flows:
        return
    named = "IDENTITY_ENDPOINT" if environ.get("IDENTITY_ENDPOINT") else "AZURE_POD_IDENTITY_AUTHORITY_HOST"
    endpoint = environ.get(named) or _METADATA
    where = f"the endpoint that {named} names" if environ.get(named) else "169.254.169.254"
    try:
        address = address_of(endpoint)
    except ValueError:
        yield error("endpoint_wrong", f"{where} can't be read: it is no URL", f"correct {named}, or unset it")
        return
    try:
        patient.connect(*address).close()
    except OSError as failure:
        yield error(
            "no_endpoint",
            f"{where} can't be reached ({failure.strerror or 'no answer'}): this machine has no managed identity, or a "
            "firewall or a network policy stands before it",
            "run it where Azure gives an identity, allow the way to the endpoint, and name it in NO_PROXY",
            rule="G12",
        )
        return
    asked = [each for each in setup.scopes if each]
    own = [each for each in asked if is_of_application(each)] or asked or [(_RESOURCE,)]
    client = msal.ManagedIdentityClient(
        msal.UserAssignedManagedIdentity(client_id=setup.client_id)
        if setup.client_id
        else msal.SystemAssignedManagedIdentity(),
        resilience=patience(setup.timeout),
    )
    try:
        result = client.acquire_token_for_client(resource=own[0][0].removesuffix("/.default"))
    except (MalformedAnswer, ValueError):  # what isn't JSON: other clouds answer at that address, too
        yield error(
            "endpoint_foreign",
            f"{where} answers, and not as Azure's does: this machine is another cloud's, or something stands before it",
            "run it where Azure gives an identity, or use a federated credential here",
            rule="G12",
        )
        return
    except ProviderUnavailable as failure:
        yield error("endpoint_fails", f"{where} gives no token: {failure}", "wait: the platform is to mend it")
        return
    finally:
        client.close()
    if "access_token" in result:
        yield ok(f"{where} gives a token, for {result.get('expires_in', 0)} s")
        return
    yield error(
        "identity_refused",
        f"{where} refuses a token ({result.get('error')}): {result.get('error_description', '')}",
        "assign the identity to this resource, and correct client_id where it is a user-assigned one",
    )
