"""What callers give as they have it: an application of MSAL's as the credential, and `verify=` as MSAL takes it."""

from __future__ import annotations

import json
import ssl
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msal as plain
import pytest
import requests

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.errors import ConfigurationError
from resilient_auth.integrations.requests import BearerAuth
from resilient_auth.testing import ManualClock

SCOPE = "api://orders/.default"


def application(idp: Emulator, make: Any = ra.msal.ConfidentialClientApplication, **options: Any) -> Any:
    about = {"authority": idp.authority("contoso"), "instance_discovery": False, "verify": idp.ca_file} | options
    if "Public" not in make.__name__:
        about["client_credential"] = "x"
    return make("daemon", **about)


def patient() -> dict[str, Any]:
    return {"resilience": ra.Settings(clock=ManualClock())}


@pytest.fixture(params=["ours", "msal's", "wrapped"])
def app(request: pytest.FixtureRequest, idp: Emulator) -> Iterator[Any]:
    if request.param == "ours":
        with closing(application(idp, **patient())) as made:
            yield made
        return
    theirs = application(idp, plain.ConfidentialClientApplication)
    if request.param == "msal's":
        yield theirs
    else:
        with closing(ra.wrap(theirs)) as made:
            yield made
    theirs.http_client.close()


def asked(idp: Emulator) -> int:
    return sum(call.endpoint == "token" for call in idp.ledger.calls)


class TestApplications:
    def test_a_client_takes_one(self, idp: Emulator, app: Any) -> None:
        """Its tokens are held, and outlast the provider."""
        with ra.api_client(idp.api_url, app, SCOPE, verify=idp.ca_file) as client:
            assert client.get("/").status_code == 200
            idp.fail(Fault.http_503(), "token")
            assert client.get("/").status_code == 200
        assert asked(idp) == 1

    def test_a_revoked_token_is_replaced(self, idp: Emulator, app: Any) -> None:
        """As with a `ResilientCredential`, which is made around it."""
        with ra.api_client(idp.api_url, app, SCOPE, verify=idp.ca_file) as client:
            client.get("/")
            idp.revoke("daemon")
            assert client.get("/").status_code == 200
        assert asked(idp) == 2

    @pytest.mark.parametrize("awaits", [False, True], ids=["threads'", "asyncio's"])
    async def test_tasks_take_one(self, idp: Emulator, app: Any, awaits: bool) -> None:
        given = ra.aio.wrap(app) if awaits else app
        async with ra.aio.api_client(idp.api_url, given, [SCOPE], verify=idp.ca_file) as client:
            assert (await client.get("/")).status_code == 200

    def test_so_do_the_others(self, idp: Emulator, app: Any) -> None:
        """httpx's auth, requests' auth and the claims service's client."""
        auth = ra.BearerAuth(app, SCOPE, origins=[idp.api_url])
        trust = ssl.create_default_context(cafile=idp.ca_file)
        assert httpx.get(f"{idp.api_url}/", auth=auth, verify=trust).status_code == 200
        for_requests = BearerAuth(app, SCOPE, origins=[idp.api_url])
        assert requests.get(f"{idp.api_url}/", auth=for_requests, verify=idp.ca_file, timeout=5).status_code == 200
        url = f"{idp.api_url}/decide"
        with ra.RemoteClaimsVerifier(url, sends="sub", credential=app, scopes=SCOPE, verify=idp.ca_file) as service:
            assert service.verify({"sub": "ada"}).code != "claims_service_refused"

    def test_users_tokens_need_their_user(self, idp: Emulator) -> None:
        """What to give instead is said, before anything is sent."""
        app = application(idp, ra.msal.PublicClientApplication)
        for make in (ra.api_client, ra.aio.api_client):
            with pytest.raises(ConfigurationError, match=r"account.*ResilientCredential\(app"):
                make(idp.api_url, app, SCOPE)
        with pytest.raises(ConfigurationError, match="make an object"):
            ra.api_client(idp.api_url, plain.ConfidentialClientApplication, SCOPE)
        with pytest.raises(ConfigurationError, match="at least one scope"):
            ra.api_client(idp.api_url, application(idp))
        assert not asked(idp)


#: `verify` as a caller may write it, from the path of the bundle.
TRUSTED: dict[str, Callable[[str], Any]] = {
    "a path": str,
    "a Path": Path,
    "a context": lambda path: ssl.create_default_context(cafile=path),
    "False": lambda path: False,
}


def by_client(idp: Emulator, verify: Any) -> None:
    with ra.api_client(idp.api_url, lambda: "T", verify=verify) as client:
        client.get("/")


def by_service(idp: Emulator, verify: Any) -> None:
    with ra.RemoteClaimsVerifier(idp.api_url, sends="sub", verify=verify) as service:
        code = service.verify({"sub": "ada"}).code
    if code != "claims_service_refused":
        raise httpx.ConnectError(code)


def by_verifier(idp: Emulator, verify: Any) -> None:
    settings = ra.Settings(clock=ManualClock())
    with ra.ClaimsVerifier.for_entra("contoso", "x", authority=idp.url, verify=verify, settings=settings) as verifier:
        verifier.warm_up()


def by_application(idp: Emulator, verify: Any) -> None:
    app = application(idp, verify=verify, resilience=ra.Settings(clock=ManualClock(), wait=0.3))
    app.acquire_token_for_client([SCOPE])
    app.close()


FACES = {"api_client": by_client, "claims service": by_service, "verifier": by_verifier, "application": by_application}


@pytest.mark.parametrize("face", FACES)
class TestVerify:
    @pytest.mark.parametrize("how", TRUSTED)
    def test_it_means_the_same_everywhere(self, idp: Emulator, face: str, how: str) -> None:
        """And nobody is warned of it."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            FACES[face](idp, TRUSTED[how](idp.ca_file))

    @pytest.mark.parametrize("how", [True, None])
    def test_true_is_the_environments_bundle(
        self, idp: Emulator, face: str, how: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or that of the machine, which doesn't know the emulator."""
        with pytest.raises((httpx.TransportError, ra.ProviderUnavailable)):
            FACES[face](idp, how)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", idp.ca_file)
        FACES[face](idp, how)

    def test_a_path_that_isnt_there_is_said_at_once(self, idp: Emulator, face: str) -> None:
        with pytest.raises(ConfigurationError, match="verify"):
            FACES[face](idp, "/nowhere/ca.pem")
        assert not idp.ledger.calls


def test_what_isnt_a_bundle_is_said_at_once() -> None:
    for wrong in (5, b"/ca.pem", ["/ca.pem"]):
        with pytest.raises(ConfigurationError, match="verify must be"):
            ra.api_client("https://api.example", None, verify=wrong)  # type: ignore[arg-type]


def test_without_the_environment_true_is_the_machines_bundle(idp: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """`trust_env=False` means it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", idp.ca_file)
    with ra.api_client(idp.api_url, None, trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.post("/")
    with ra.api_client(idp.api_url, None, trust_env=False, verify=idp.ca_file) as client:
        assert json.loads(client.get("/").text) is not None
