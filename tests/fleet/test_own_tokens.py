"""Tokens of the application's own in a store: as many as it has audiences, each at the same cost, none that is gone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import msal
import pytest
from fleet_world import SCOPE, USER_SCOPE, BreakableBackend

import resilient_auth as ra
from resilient_auth._fleet.accounts import SharedCache
from resilient_auth._fleet.user_record import StoredToken, UserRecord, encode, prune
from resilient_auth._msal.user_cache import UserCache
from resilient_auth.emulator import Emulator
from resilient_auth.emulator.faults import Fault
from resilient_auth.token import Token, TokenRequest

MAIL = ["https://graph.microsoft.com/Mail.Read"]
#: An administrator has revoked the user's tokens.
REVOKED = Fault.status(
    400, json.dumps({"error": "invalid_grant", "error_codes": [50173], "error_description": "AADSTS50173"})
)


class WeighingBackend(BreakableBackend):
    """A medium that weighs what is written."""

    def __init__(self, clock: Any = None) -> None:
        super().__init__(clock)
        self.written: list[int] = []

    def put(self, key: str, value: bytes, **options: Any) -> Any:
        self.written.append(len(value))
        return super().put(key, value, **options)


@pytest.fixture
def backend(clock: Any) -> WeighingBackend:
    return WeighingBackend(clock)


def settled(app: Any) -> None:
    ends = time.monotonic() + 8
    while not app._ra_session.shared_cache.settled:
        assert time.monotonic() < ends, "it isn't written"
        time.sleep(0.01)


def keep(app: Any, number: int, variant: str = "") -> TokenRequest:
    """Keep a token of the application's own, as an exchange does."""
    shared_cache: SharedCache = app._ra_session.shared_cache
    scopes = (f"https://api-{number}.example/.default",)
    request = TokenRequest(app._ra_identity.authority, app.client_id, "client_credentials", scopes, None, variant)
    clock = app._ra_session.engine.clock
    secret = f"{number} {variant}".ljust(1500)
    shared_cache.save(None, request, Token(secret, "Bearer", clock.wall(), clock.monotonic(), 3600.0, 1800.0))
    return request


class TestManyAudiences:
    def test_each_is_found_however_many_there_are(self, life: Callable[..., Any], backend: WeighingBackend) -> None:
        """A thousand, and a write costs what the first one cost."""
        app = life()
        requests = [keep(app, number) for number in range(1000)]
        assert max(backend.written) < 2 * max(backend.written[:10])
        again = life()
        shared_cache, clock = again._ra_session.shared_cache, again._ra_session.engine.clock
        for number, request in enumerate(requests):
            user_record = shared_cache.load(None, request)
            assert user_record is not None
            found = user_record.find(request, clock.wall(), clock.monotonic())
            assert found is not None
            assert found.secret.split()[0] == str(number)

    def test_they_survive_a_restart_in_an_outage(self, idp: Emulator, life: Callable[..., Any]) -> None:
        """As many as were asked for."""
        app = life()
        apis = [[f"https://api-{number}.example/.default"] for number in range(300)]
        tokens = [app.acquire_token_for_client(scopes)["access_token"] for scopes in apis]
        idp.fail(Fault.refuse())
        again = life()
        assert [again.acquire_token_for_client(scopes)["access_token"] for scopes in apis] == tokens

    def test_one_audiences_variants_are_bounded_and_push_no_other_one_out(self, life: Callable[..., Any]) -> None:
        """By an option."""
        app = life(max_stored_tokens=8)
        first = keep(app, 1)
        variants = [keep(app, 2, f"v{number}") for number in range(20)]
        shared_cache = life()._ra_session.shared_cache
        kept = shared_cache.load(None, first)
        assert kept is not None
        assert len(kept.tokens) == 1
        many = shared_cache.load(None, variants[0])
        assert many is not None
        assert len(many.tokens) == 8
        with pytest.raises(ra.ConfigurationError, match="max_stored_tokens"):
            ra.Settings(max_stored_tokens=0)

    def test_removed_they_are_gone_whoever_wrote_them(self, idp: Emulator, life: Callable[..., Any]) -> None:
        """All audiences', and no other application's."""
        app, other = life(), life("other")
        for number in range(5):
            app.acquire_token_for_client([f"https://api-{number}.example/.default"])
        kept = other.acquire_token_for_client(SCOPE)["access_token"]
        life().remove_tokens_for_client()
        asked = len(idp.ledger.token_calls())
        again = life()
        for number in range(5):
            again.acquire_token_for_client([f"https://api-{number}.example/.default"])
        assert len(idp.ledger.token_calls()) == asked + 5
        assert life("other").acquire_token_for_client(SCOPE)["access_token"] == kept

    def test_a_record_of_them_is_no_users(self, life: Callable[..., Any]) -> None:
        """Whatever a provider calls its users: names of the two kinds never meet."""
        app = life()
        request = keep(app, 1)
        shared_cache = app._ra_session.shared_cache
        for subject in (json.dumps(request.scopes), f"\n{json.dumps(request.scopes)}", str(request.scopes)):
            assert shared_cache.load(subject) is None

    def test_looking_for_a_new_one_costs_the_same_with_ten_thousand(self) -> None:
        """MSAL looks through all that there are; we look where the scopes are."""

        def seconds(count: int) -> float:
            cache, query = UserCache(), {"client_id": "c", "environment": "e", "realm": "r", "home_account_id": None}
            for number in range(count):
                entry = {
                    **query, "credential_type": "AccessToken", "secret": "s", "target": f"api-{number}/.default",
                    "expires_on": str(int(time.time()) + 3600), "cached_at": str(int(time.time())),
                }  # fmt: skip
                cache.modify("AccessToken", entry, entry)
            took = []
            for _ in range(5):
                begun = time.perf_counter()
                for number in range(200):
                    assert list(cache.search("AccessToken", target=[f"new-{number}/.default"], query=query)) == []
                    assert list(cache.search("AccessToken", target=["api-7/.default"], query=query))
                took.append(time.perf_counter() - begun)
            return min(took)

        few, many = seconds(100), seconds(10_000)
        assert many < 5 * few, f"{few * 1000:.2f} ms at 100, {many * 1000:.2f} ms at 10,000"

    def test_a_search_finds_what_msals_finds(self) -> None:
        """By any of the scopes, through changes and removals, expired ones left out."""
        ours, msals = UserCache(), msal.TokenCache()
        query = {"client_id": "c", "environment": "e", "realm": "r", "home_account_id": None}
        now = int(time.time())
        targets = ["a", "a b", "b c", "a b c", "d", ""]
        for cache in (ours, msals):
            for number, target in enumerate(targets):
                for realm in ("r", "s"):
                    entry = {
                        **query, "credential_type": "AccessToken", "secret": f"{target} {realm}", "target": target,
                        "realm": realm, "expires_on": str(now + (3600 if number != 3 else -5)),
                    }  # fmt: skip
                    cache.modify("AccessToken", entry, entry)
                    if target == "d":
                        cache.remove_at(entry)
                    if target == "b c":
                        cache.modify("AccessToken", entry, {"secret": "changed"})
        for wanted in ([], ["a"], ["b"], ["c"], ["a", "b"], ["c", "b"], ["d"], ["a", "x"]):
            found = [
                sorted(e["secret"] for e in c.search("AccessToken", target=wanted, query=query)) for c in (ours, msals)
            ]
            assert found[0] == found[1], wanted
        assert "d" not in ours._own


def test_a_partition_holds_as_many_tokens_as_it_may() -> None:
    """The longest-lived."""
    tokens = {str(n): StoredToken("s", "Bearer", float(n), 100.0, 50.0, None, {}) for n in range(100)}
    pruned = prune(UserRecord("", tokens=tokens), 50.0, 0.0, 10)
    assert sorted(map(int, pruned.tokens)) == list(range(90, 100))
    assert len(encode(pruned, "n")) < 2000


class TestGoneTokens:
    def test_a_users_token_that_is_gone_is_served_by_no_new_process(
        self, idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any], clock: Any
    ) -> None:
        """It goes from MSAL's cache and from the store, the account and its other tokens don't."""
        app = life()
        account = sign_in(app)
        assert app.acquire_token_silent(MAIL, account) is not None
        settled(app)
        outage = idp.fail(REVOKED, "token")
        clock.skip(3000)
        assert "error" in gone(app, USER_SCOPE, account)
        settled(app)
        whose = {"home_account_id": account["home_account_id"]}
        held = [e["target"] for e in app.token_cache.search("AccessToken", query=whose, now=0)]
        assert [target for target in held if "Mail.Read" not in target] == []
        assert held
        again = life()
        assert again.get_accounts("ann@contoso.com") == [account]
        assert "error" in again.acquire_token_silent_with_error(USER_SCOPE, account)
        assert again.acquire_token_silent(MAIL, account)["token_source"] == "cache"
        outage.stop()

    def test_an_applications_token_that_is_gone_is_served_by_no_new_process(
        self, idp: Emulator, life: Callable[..., Any], clock: Any
    ) -> None:
        """Its administrator has disabled it; another audience's token stays until its own denial."""
        app = life()
        app.acquire_token_for_client(SCOPE)
        other = ["https://other.example/.default"]
        app.acquire_token_for_client(other)
        idp.fail(Fault.status(400, json.dumps({"error": "unauthorized_client", "error_codes": [7000112]})), "token")
        clock.skip(3000)
        ends = time.monotonic() + 8
        while "error" not in app.acquire_token_for_client(SCOPE):
            assert time.monotonic() < ends
            time.sleep(0.01)
        settled(app)
        again = life()
        assert "error" in again.acquire_token_for_client(SCOPE)
        assert again.acquire_token_for_client(other)["token_source"] == "cache"

    def test_without_a_store_it_goes_from_msals_cache(self, idp: Emulator, clock: Any) -> None:
        """An owner who writes that down doesn't serve it after a restart either."""
        cache = msal.SerializableTokenCache()
        app = ra.wrap(
            msal.ConfidentialClientApplication(
                "daemon", client_credential="s3cret-of-the-daemon", authority=idp.authority("contoso"),
                instance_discovery=False, verify=idp.ca_file, token_cache=cache,
            ),
            resilience=ra.Settings(clock=clock),
        )  # fmt: skip
        app.acquire_token_for_client(SCOPE)
        app.acquire_token_for_client(["https://other.example/.default"])
        idp.fail(Fault.status(400, json.dumps({"error": "unauthorized_client", "error_codes": [7000112]})), "token")
        clock.skip(3000)
        ends = time.monotonic() + 8
        while "error" not in app.acquire_token_for_client(SCOPE):
            assert time.monotonic() < ends
            time.sleep(0.01)
        assert [e["target"] for e in cache.search("AccessToken", now=0)] == ["https://other.example/.default"]
        app.close()

    def test_a_token_that_an_api_refused_isnt_served_by_a_new_process(
        self, idp: Emulator, life: Callable[..., Any]
    ) -> None:
        """Though the provider can't be asked for another one."""
        app = life()
        credential = ra.ResilientCredential(app)
        token = credential.get_token(*SCOPE).token
        idp.fail(Fault.refuse())
        credential.invalidate(token)
        settled(app)
        with pytest.raises(ra.ProviderUnavailable):
            life(retry=ra.RetryOptions(attempts=1)).acquire_token_for_client(SCOPE)


def gone(app: Any, scopes: list[str], account: Any) -> Any:
    """Ask until the refresh that nobody waits for has been denied."""
    ends = time.monotonic() + 8
    while "error" not in (answer := app.acquire_token_silent_with_error(scopes, account)):
        assert time.monotonic() < ends
        time.sleep(0.01)
    return answer
