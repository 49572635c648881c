"""Passwords of users whose domain is federated: they go to the domain's own service, by WS-Trust."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msal as plain_msal
import pytest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.testing import capture_events

SCOPE = ["https://graph.microsoft.com/User.Read"]
SERVICE = "/adfs/services/trust/13/usernamemixed"
REALM = {
    "account_type": "Federated",
    "federation_protocol": "WSTrust",
    "federation_active_auth_url": f"https://adfs.contoso.com{SERVICE}",
    "cloud_audience_urn": "urn:federation:MicrosoftOnline",
}


def soap_fault(code: str, subcode: str) -> str:
    """As AD FS writes one, always with status 500."""
    return (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault><s:Code>'
        f'<s:Value>s:{code}</s:Value><s:Subcode><s:Value xmlns:a="http://docs.oasis-open.org/ws-sx/ws-trust/200512">'
        f"a:{subcode}</s:Value></s:Subcode></s:Code><s:Reason><s:Text>ID3242: no</s:Text></s:Reason></s:Fault></s:Body>"
        "</s:Envelope>"
    )


WRONG_PASSWORD = Fault.status(500, soap_fault("Sender", "FailedAuthentication"))


@pytest.fixture
def app(idp: Emulator, proxied: dict[str, Any], settings: Callable[..., ra.Settings]) -> Iterator[Any]:
    idp.fail(Fault.status(200, json.dumps(REALM)), "userrealm")
    with msal.PublicClientApplication("desktop", **proxied, resilience=settings()) as built:
        yield built


def sent(idp: Emulator) -> int:
    return sum(call.path.startswith(SERVICE) for call in idp.ledger.calls)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.http_503(),
        Fault.reset(),
        Fault.status(500, soap_fault("Receiver", "RequestFailed")),
        Fault.status(500, "<html>Runtime Error</html>"),
    ],
    ids=["503", "reset", "its own fault", "a page"],
)
def test_a_password_is_not_sent_twice_after_an_ambiguous_failure(idp: Emulator, app, fault):
    """By WS-Trust as little as in a form: accounts get locked that way."""
    idp.fail(fault, "unknown")
    with pytest.raises(ra.ProviderUnavailable):
        app.acquire_token_by_username_password("ann@contoso.com", "pw", SCOPE)
    assert sent(idp) == 1


def test_a_wrong_password_is_no_outage(idp: Emulator, app, proxied):
    """AD FS says it with 500; it is sent once, MSAL's error says so, and no other user hears of it."""
    idp.fail(WRONG_PASSWORD, "unknown")
    plain = plain_msal.PublicClientApplication("desktop", **proxied)
    with pytest.raises(RuntimeError, match="FailedAuthentication") as theirs:
        plain.acquire_token_by_username_password("ann@contoso.com", "no", SCOPE)
    before = sent(idp)
    with capture_events() as events:
        for number, user in enumerate(("ann", "bob", "cat"), 1):
            with pytest.raises(RuntimeError, match="FailedAuthentication") as ours:
                app.acquire_token_by_username_password(f"{user}@contoso.com", "no", SCOPE)
            assert str(ours.value) == str(theirs.value)
            assert sent(idp) == before + number
    assert not {type(event).__name__ for event in events} & {"RetryScheduled", "BreakerOpened", "BlameChanged"}
    plain.http_client.close()
