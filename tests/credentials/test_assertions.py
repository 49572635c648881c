"""Assertions from files, managed identities and applications: refreshed ahead, and each link's failure its own."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

import resilient_auth as ra
from resilient_auth import events, msal
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.testing import capture_events

SCOPE = "api://orders/.default"
EXCHANGE = "api://AzureADTokenExchange"
Build = Callable[..., Any]


def ask(app: Any) -> dict[str, Any]:
    """Ask for a token that isn't held."""
    app.remove_tokens_for_client()
    result: dict[str, Any] = app.acquire_token_for_client([SCOPE])
    return result


def calls(idp: Emulator, endpoint: str) -> int:
    return len([call for call in idp.ledger.calls if call.endpoint == endpoint])


@pytest.fixture
def projected(idp: Emulator) -> Callable[..., str]:
    """Sign what a cluster projects into a pod."""

    def sign(subject: str = "system:serviceaccount:shop:orders", seconds: float = 3600.0) -> str:
        now = int(time.time())
        claims = {"iss": "https://cluster.example", "sub": subject, "aud": EXCHANGE, "iat": now, "exp": now + seconds}
        return idp.sign(claims)

    return sign


@pytest.fixture
def federated(idp: Emulator) -> None:
    idp.register(
        "daemon",
        federated=[{"iss": "https://cluster.example", "aud": EXCHANGE, "sub": "system:serviceaccount:shop:orders"}],
    )


@pytest.fixture
def metadata(idp: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", idp.metadata_url)


@pytest.fixture
def identity(metadata: None, settings: Callable[..., ra.Settings]) -> Any:
    client = msal.ManagedIdentityClient(msal.SystemAssignedManagedIdentity(), resilience=settings())
    yield client
    client.close()


@pytest.mark.usefixtures("federated")
class TestAFile:
    def test_it_is_read_again_as_it_rotates(
        self, idp: Emulator, app_at: Build, tmp_path: Path, projected: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "token"
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(path))
        path.write_text(projected(seconds=-10) + "\n")
        app = app_at(idp, client_credential={"client_assertion": ra.assertion_from_file()})
        assert "AADSTS700024" in ask(app)["error_description"]
        path.write_text(projected())
        assert "access_token" in ask(app)

    @pytest.mark.parametrize("what", ["missing", "empty", "several", "binary", "large", "directory"])
    def test_what_is_wrong_with_it_is_told_and_the_provider_is_not_asked(
        self, idp: Emulator, app_at: Build, tmp_path: Path, projected: Any, what: str
    ) -> None:
        path = tmp_path / "token"
        text = projected()
        content = {"empty": b" \n", "several": f"{text} {text}".encode(), "binary": b"\xff\xfe", "large": b"x" * 70_000}
        if what == "directory":
            path.mkdir()
        elif what in content:
            path.write_bytes(content[what])
        assertion = ra.assertion_from_file(path)
        app = app_at(idp, client_credential={"client_assertion": assertion})
        with capture_events() as told:
            with pytest.raises(ra.AssertionUnavailable) as caught:
                ask(app)
            told.wait_for(events.ExchangeFailed)
        assert caught.value.link == f"file {path}"
        assert str(path) in str(caught.value)
        assert text not in str(caught.value)
        assert calls(idp, "token") == 0
        assert told.of(events.ExchangeFailed)[0].code == "assertion_unavailable"

    def test_a_held_token_is_served_while_the_file_is_gone(
        self, idp: Emulator, app_at: Build, tmp_path: Path, projected: Any, clock: Any
    ) -> None:
        path = tmp_path / "token"
        path.write_text(projected())
        app = app_at(idp, client_credential={"client_assertion": ra.assertion_from_file(path)})
        held = ask(app)["access_token"]
        path.unlink()
        clock.skip(3000)
        result = app.acquire_token_for_client([SCOPE])
        assert result["access_token"] == held

    def test_two_applications_of_two_files_have_each_its_own(
        self, idp: Emulator, app_at: Build, tmp_path: Path, projected: Any
    ) -> None:
        good, other = tmp_path / "good", tmp_path / "other"
        good.write_text(projected())
        other.write_text(projected("system:serviceaccount:shop:billing"))
        first = app_at(idp, client_credential={"client_assertion": ra.assertion_from_file(good)})
        second = app_at(idp, client_credential={"client_assertion": ra.assertion_from_file(str(other))})
        assert "access_token" in ask(first)
        with ra.wait_at_most(0.3), pytest.raises(ra.ProviderUnavailable):
            ask(second)

    def test_bad_input_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AZURE_FEDERATED_TOKEN_FILE", raising=False)
        with pytest.raises(ra.ConfigurationError, match="AZURE_FEDERATED_TOKEN_FILE"):
            ra.assertion_from_file()
        for wrong in ("", 3, b"/x"):
            with pytest.raises(ra.ConfigurationError, match="path must be"):
                ra.assertion_from_file(wrong)  # type: ignore[arg-type]


class TestRightAfterCreation:
    def test_a_federated_credential_that_is_not_known_yet_is_asked_for_again_for_minutes(
        self, idp: Emulator, app_at: Build, tmp_path: Path, projected: Any, clock: Any, eventually: Any
    ) -> None:
        path = tmp_path / "token"
        path.write_text(projected())
        idp.register("daemon", federated=[])
        app = app_at(idp, client_credential={"client_assertion": ra.assertion_from_file(path)})
        for _ in range(4):
            with ra.wait_at_most(0.3), pytest.raises(ra.ProviderUnavailable, match=r"AADSTS70021|deadline"):
                app.acquire_token_for_client([SCOPE])
            clock.skip(60)
        idp.register("daemon", federated=[{"sub": "system:serviceaccount:shop:orders"}])
        # Nobody calls: whoever comes next finds the token.
        eventually(lambda: idp.ledger.tokens)
        assert "access_token" in app.acquire_token_for_client([SCOPE])

    def test_after_ten_minutes_it_is_the_denial_that_it_is(
        self, idp: Emulator, app_at: Build, tmp_path: Path, projected: Any, clock: Any, eventually: Any
    ) -> None:
        path = tmp_path / "token"
        path.write_text(projected())
        idp.register("daemon", federated=[])
        app = app_at(idp, client_credential={"client_assertion": ra.assertion_from_file(path)})
        with ra.wait_at_most(0.3), pytest.raises(ra.ProviderUnavailable):
            app.acquire_token_for_client([SCOPE])
        clock.skip(660)

        def denied() -> bool:
            try:
                return "AADSTS70021" in str(app.acquire_token_for_client([SCOPE]))
            except ra.ProviderUnavailable:
                clock.skip(10)
                return False

        eventually(denied)


class TestAManagedIdentity:
    def test_its_token_is_the_assertion_and_is_held_and_kept_fresh(
        self, idp: Emulator, app_at: Build, identity: Any, clock: Any, eventually: Any
    ) -> None:
        idp.register("daemon", federated=[{"aud": EXCHANGE}])
        app = app_at(idp, client_credential={"client_assertion": ra.assertion_from_managed_identity(identity)})
        assert "access_token" in ask(app)
        assert "access_token" in ask(app)
        assert calls(idp, "managed_identity") == 1
        # While the endpoint fails, what was refreshed ahead is there.
        clock.skip(2700)
        eventually(lambda: calls(idp, "managed_identity") > 1)
        eventually(lambda: len([token for token in idp.ledger.tokens if EXCHANGE in str(token.scopes)]) > 1)
        idp.fail(Fault.status(500), "managed_identity")
        clock.skip(600)
        assert "access_token" in ask(app)

    @pytest.mark.parametrize("fault", ["http_503", "refuse"])
    def test_its_failure_is_told_apart_from_the_applications_own(
        self, idp: Emulator, app_at: Build, metadata: None, settings: Any, fault: str
    ) -> None:
        client = msal.UserAssignedManagedIdentity(client_id="mi-of-the-shop")
        assertion = ra.assertion_from_managed_identity(client, settings=settings())
        app = app_at(idp, client_credential={"client_assertion": assertion})
        idp.fail(Fault.all()[fault], "managed_identity")
        begun = time.monotonic()
        with ra.wait_at_most(3.0), pytest.raises(ra.AssertionUnavailable) as caught:
            ask(app)
        assert time.monotonic() - begun < 4.0
        assert caught.value.link == "managed identity mi-of-the-shop"
        assert caught.value.authority == idp.metadata_url
        assert "mi-of-the-shop" in str(caught.value)
        assert calls(idp, "token") == 0
        assertion.close()

    def test_its_denial_names_it_too(self, idp: Emulator, app_at: Build, identity: Any) -> None:
        body = '{"error": "invalid_request", "error_description": "Identity not found"}'
        idp.fail(Fault.status(400, body), "managed_identity")
        app = app_at(idp, client_credential={"client_assertion": ra.assertion_from_managed_identity(identity)})
        with pytest.raises(ra.AssertionUnavailable, match=r"managed identity.*Identity not found"):
            ask(app)

    def test_one_of_msals_own_and_the_default_one_will_do(self, idp: Emulator, app_at: Build, metadata: None) -> None:
        import msal as plain
        import requests

        own = plain.ManagedIdentityClient(plain.SystemAssignedManagedIdentity(), http_client=requests.Session())
        for given in (None, own):
            assertion = ra.assertion_from_managed_identity(given)
            assert "access_token" in ask(app_at(idp, client_credential={"client_assertion": assertion}))
            assertion.close()
        own._http_client.http_client.close()

    def test_bad_input_is_named(self) -> None:
        for wrong in ("client-id", 3, object()):
            with pytest.raises(ra.ConfigurationError, match="managed_identity must be"):
                ra.assertion_from_managed_identity(wrong)
        with pytest.raises(ra.ConfigurationError, match="audience must be"):
            ra.assertion_from_managed_identity(audience="")


class TestAChain:
    @pytest.fixture
    def chain(self, idp: Emulator, app_at: Build, identity: Any) -> tuple[Any, Any]:
        """A managed identity, the blueprint that it stands for, and an agent of that."""
        blueprint = app_at(idp, client_credential={"client_assertion": ra.assertion_from_managed_identity(identity)})
        from_blueprint = ra.assertion_from_application(blueprint, fmi_path="agent")
        agent = app_at(idp, client_credential={"client_assertion": from_blueprint})
        return blueprint, agent

    def test_an_agents_user_gets_a_token(self, idp: Emulator, chain: tuple[Any, Any]) -> None:
        _, agent = chain
        idp.add_user("ann@contoso.com")
        assert "access_token" in ask(agent)
        assertion = ra.assertion_from_application(agent)
        result = agent.acquire_token_by_user_federated_identity_credential(
            [SCOPE], assertion, username="ann@contoso.com"
        )
        assert "access_token" in result
        assert calls(idp, "managed_identity") == 1

    def test_one_deadline_is_split_among_its_links(
        self, idp: Emulator, app_at: Build, identity: Any, settings: Any
    ) -> None:
        hurry = settings(wait=1.5, exchange_deadline=1.5, attempt_timeout=1.5, connect_timeout=1.5)
        blueprint = app_at(
            idp,
            client_credential={"client_assertion": ra.assertion_from_managed_identity(identity)},
            resilience=hurry,
        )
        assertion = ra.assertion_from_application(blueprint)
        agent = app_at(idp, client_credential={"client_assertion": assertion}, resilience=hurry)
        idp.fail(Fault.black_hole(), "managed_identity")
        begun = time.monotonic()
        with pytest.raises(ra.AssertionUnavailable) as caught:
            ask(agent)
        # A third of one and a half seconds.
        assert 0.4 < time.monotonic() - begun < 1.2
        assert caught.value.link == "managed identity"

    def test_a_link_in_the_middle_is_named(self, idp: Emulator, chain: tuple[Any, Any]) -> None:
        _, agent = chain
        idp.deny("client_credentials", "invalid_client", "The blueprint was disabled")
        with pytest.raises(ra.AssertionUnavailable) as caught:
            ask(agent)
        assert caught.value.link == f"application daemon at {idp.url}"
        assert "The blueprint was disabled" in str(caught.value)
        assert copy.copy(caught.value).link == pickle.loads(pickle.dumps(caught.value)).link == caught.value.link

    def test_the_last_links_own_failure_stays_its_own(
        self, idp: Emulator, second_idp: Emulator, app_at: Build, chain: tuple[Any, Any]
    ) -> None:
        blueprint, _ = chain
        other = app_at(second_idp, client_credential={"client_assertion": ra.assertion_from_application(blueprint)})
        second_idp.fail(Fault.http_503(), "token")
        with pytest.raises(ra.ServerFailed):
            ask(other)

    def test_forty_tasks_at_once_wait_for_no_place_that_they_hold_themselves(
        self, idp: Emulator, chain: tuple[Any, Any], together: Callable[..., list[Any]]
    ) -> None:
        _, agent = chain
        numbers, lock = iter(range(100)), threading.Lock()

        def one() -> Any:
            with lock:
                number = next(numbers)
            return agent.acquire_token_for_client([f"api://{number}/.default"])

        assert all("access_token" in result for result in together(40, one))
        assert calls(idp, "managed_identity") == 1

    def test_the_token_of_each_link_is_for_the_exchange_alone(self, idp: Emulator, chain: tuple[Any, Any]) -> None:
        blueprint, _ = chain
        token = ra.assertion_from_application(blueprint, fmi_path="agent")()
        assert jwt.decode(token, options={"verify_signature": False})["aud"] == EXCHANGE
        other = ra.assertion_from_application(blueprint, fmi_path="another agent")()
        assert other != token
        assert ra.assertion_from_application(blueprint, fmi_path="agent")() == token

    def test_bad_input_is_named(self, chain: tuple[Any, Any]) -> None:
        for wrong in (None, "app", msal.PublicClientApplication):
            with pytest.raises(ra.ConfigurationError, match="app must be"):
                ra.assertion_from_application(wrong)
        with pytest.raises(ra.ConfigurationError, match="fmi_path must be"):
            ra.assertion_from_application(chain[0], fmi_path="")


def test_a_hanging_link_is_named_while_it_is_waited_for(
    idp: Emulator, app_at: Build, identity: Any, settings: Any
) -> None:
    app = app_at(
        idp,
        client_credential={"client_assertion": ra.assertion_from_managed_identity(identity)},
        resilience=settings(wait=1.5, exchange_deadline=1.5, attempt_timeout=1.5, connect_timeout=1.5),
    )
    idp.fail(Fault.black_hole(), "managed_identity")
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            app.acquire_token_for_client([SCOPE])
        except ra.ProviderUnavailable as error:
            failed.append(error)

    first = threading.Thread(target=wait)
    first.start()
    time.sleep(0.1)
    with ra.wait_at_most(0.3), pytest.raises(ra.AcquisitionTimeout, match="managed identity hasn't returned"):
        app.acquire_token_for_client([SCOPE])
    first.join()
    assert isinstance(failed[0], ra.AssertionUnavailable)


def test_no_text_of_it_holds_a_token(idp: Emulator, app_at: Build, identity: Any) -> None:
    assertion = ra.assertion_from_managed_identity(identity)
    token = assertion()
    assert token not in repr(assertion)
    assert repr(assertion) == "<assertion from managed identity>"
