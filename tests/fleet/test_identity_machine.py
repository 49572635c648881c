"""Many applications over one store and one cache, at random: whatever one is given was made for it."""

from __future__ import annotations

import base64
import json
import os
import time
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from msal import TokenCache
from msal.authority import canonicalize

import resilient_auth as ra
from resilient_auth._fleet.user_record import StoredToken
from resilient_auth._msal.identity import Ownership, identity_given
from resilient_auth._msal.results import read
from resilient_auth._msal.session import Session
from resilient_auth._msal.token_cache import ExchangeView
from resilient_auth._msal.user_cache import UserCache
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.token import Token, TokenRequest

#: Authorities of which MSAL's keys tell but some apart: given as, and the token endpoint.
AUTHORITIES = [
    ("oidc_authority", "https://sso.example/realms/bank-a", "/protocol/openid-connect/token"),
    ("oidc_authority", "https://sso.example/realms/bank-b", "/protocol/openid-connect/token"),
    ("oidc_authority", "https://sso.example/realms/Bank-a", "/protocol/openid-connect/token"),
    ("oidc_authority", "https://sso.example:8443/realms/bank-a", "/protocol/openid-connect/token"),
    ("authority", "https://sso.example/t1", "/oauth2/v2.0/token"),
    ("authority", "https://sso.example/t2", "/oauth2/v2.0/token"),
    ("authority", "https://sso.example:8443/t1", "/oauth2/v2.0/token"),
    ("authority", "https://login.microsoftonline.com/t1", "/oauth2/v2.0/token"),
    ("authority", "https://login.microsoftonline.com/t2", "/oauth2/v2.0/token"),
    ("authority", "https://c.b2clogin.com/c.com/b2c_1_signup", "/oauth2/v2.0/token"),
    ("authority", "https://c.b2clogin.com/c.com/b2c_1_mfa", "/oauth2/v2.0/token"),
    ("authority", "https://c.b2clogin.com/c.com?p=b2c_1_mfa", "/oauth2/v2.0/token"),
]
SCOPES = ("a", "b")
WHO = st.sampled_from([None, "ann", "bob", "Ann"])
SCOPE = st.sampled_from(SCOPES)
NUMBER = st.integers(0, 7)


class App:
    """An application as far as its session goes: what MSAL's objects would say is made up, its cache is real."""

    def __init__(self, where: int, client: str, capabilities: tuple[str, ...]) -> None:
        name, given, leaf = AUTHORITIES[where]
        base, mark, query = given.partition("?")
        self.endpoint = f"{base}{leaf}{mark}{query}"
        _, self.host, self.realm = canonicalize(self.endpoint)
        self.client, self.capabilities = client, capabilities
        self.identity = identity_given({"client_id": client, name: given, "client_capabilities": capabilities})
        #: What a token that is made for it says.
        self.me = json.dumps([self.endpoint, client, capabilities])
        # A user's refresh token is good in all tenants of a cloud.
        self.cloud = json.dumps(
            [given.rpartition("/")[0] if name == "authority" and "b2c" not in given else given, client]
        )

    def authority(self) -> Any:
        return SimpleNamespace(token_endpoint=self.endpoint, instance=self.host, tenant=self.realm)

    def begin(self, settings: ra.Settings, cache: Any, *, known: bool = True) -> Session:
        session = Session(settings, {"token_cache": UserCache() if settings.store else cache})

        def ownership() -> Ownership:
            if not known:
                return Ownership.before_discovery(self.identity)
            return Ownership.of(self.identity, self.authority())

        session.identify(self.identity, ownership)
        if settings.store:  # as siblings have it
            session.share(cache)
        session.announce()
        return session

    def request(self, who: str | None, scope: str) -> TokenRequest:
        flow = "silent" if who else "client_credentials"
        return TokenRequest(self.identity.authority, self.client, flow, (scope,), who)

    def query(self, who: str | None) -> dict[str, Any]:
        return {"client_id": self.client, "environment": self.host, "realm": self.realm, "home_account_id": who}


def _event(app: App, who: str | None, scope: str, *, says_who: bool = True) -> dict[str, Any]:
    claims = {"access_token": {"xms_cc": {"values": list(app.capabilities)}}} if app.capabilities else None
    response: dict[str, Any] = {
        "access_token": json.dumps([app.me, who, scope]),
        "expires_in": 3600,
        **({"refresh_token": json.dumps([app.cloud, who])} if who else {}),
    }
    if who and says_who:
        told = {"uid": who, "utid": "t"}
        response["client_info"] = base64.urlsafe_b64encode(json.dumps(told).encode()).decode()
    return {
        "client_id": app.client,
        "scope": [scope],
        "token_endpoint": app.endpoint,
        "environment": app.host,
        "response": response,
        "data": {"claims": json.dumps(claims)} if claims else {},
        "grant_type": "authorization_code" if who else "client_credentials",
    }


class Crossings(RuleBasedStateMachine):
    """Every application asks for everything; whatever comes says that it was made for exactly that."""

    stored = False

    @initialize(
        chosen=st.lists(
            st.tuples(
                st.integers(0, len(AUTHORITIES) - 1),
                st.sampled_from(["app", "App", "other"]),
                st.sampled_from([(), ("cp1",)]),
            ),
            min_size=8,
            max_size=8,
        )
    )
    def begin(self, chosen: list[tuple[int, str, tuple[str, ...]]]) -> None:
        key = os.urandom(32)
        store = ra.SealedStore(MemoryBackend(), key=key) if self.stored else None
        self.settings = ra.Settings(store=store)
        self.cache: Any = UserCache() if self.stored else TokenCache()
        self.apps = [App(*one) for one in chosen]
        self.sessions = [app.begin(self.settings, self.cache) for app in self.apps]

    def teardown(self) -> None:
        for session in getattr(self, "sessions", []):
            session.close()

    def _home(self, who: str | None) -> str | None:
        return f"{who}.t" if who else None

    @rule(number=NUMBER, who=WHO, scope=SCOPE, says_who=st.booleans())
    def obtain(self, number: int, who: str | None, scope: str, says_who: bool) -> None:
        """An exchange brings a token; the answer to a user's may not say whose it is."""
        app, session = self.apps[number], self.sessions[number]
        shared_cache = session.shared_cache
        with ExitStack() as stack:
            if shared_cache is not None:
                stack.enter_context(shared_cache.signing_in())
            self.cache.add(_event(app, who, scope, says_who=says_who))
        if shared_cache is not None:
            if who is None:
                secret, now = json.dumps([app.me, None, scope]), time.time()
                shared_cache.save(
                    None, app.request(None, scope), Token(secret, "Bearer", now, time.monotonic(), 3600.0, 1800.0)
                )
            for each in self.sessions:
                assert each.shared_cache is not None
                each.shared_cache.flush()

    @rule(number=NUMBER)
    def restart(self, number: int) -> None:
        """A new process has the store, and a cache of its own if it has one."""
        if self.stored:
            self.sessions[number].close()
            self.cache = UserCache()
            self.sessions = [app.begin(self.settings, self.cache) for app in self.apps]

    @rule(number=NUMBER, who=WHO, scope=SCOPE)
    def read(self, number: int, who: str | None, scope: str) -> None:
        """From MSAL's cache."""
        app, session = self.apps[number], self.sessions[number]
        found = read(session, session.look_at_cache(), (scope,), app.query(self._home(who)))
        assert found is None or json.loads(found.secret) == [app.me, who, scope]

    @rule(number=NUMBER, who=st.sampled_from(["ann", "bob", "Ann"]))
    def refresh(self, number: int, who: str) -> None:
        """MSAL looks for a refresh token, which it would send to this application's provider."""
        app, session = self.apps[number], self.sessions[number]
        view = ExchangeView(session.look_at_cache(), lambda: True, session.owns, session.writing)
        query = {"environment": app.host, "home_account_id": self._home(who), "client_id": app.client}
        for entry in view.search("RefreshToken", query=query):
            assert json.loads(entry["secret"]) == [app.cloud, who]

    @rule(number=NUMBER, who=WHO, scope=SCOPE, known=st.booleans())
    def look(self, number: int, who: str | None, scope: str, known: bool) -> None:
        """From the store, as the next process finds it, in an outage too."""
        if not self.stored:
            return
        app = self.apps[number]
        session = app.begin(self.settings, UserCache(), known=known)
        shared_cache = session.shared_cache
        assert shared_cache is not None
        home, wall = self._home(who), time.time()
        request = app.request(home, scope)
        user_record = shared_cache.load(home, request)
        if user_record is not None:
            held = user_record.find(request, wall, 0.0)
            entry = user_record.find_entry(request, wall, shared_cache.owns)
            assert held is None or json.loads(held.secret) == [app.me, who, scope]
            assert entry is None or json.loads(entry["secret"]) == [app.me, who, scope]
            for (kind, _), each in user_record.entries.items():
                if kind == "RefreshToken":
                    assert json.loads(each["secret"]) == [app.cloud, who]
            assert all(isinstance(token, StoredToken) for token in user_record.tokens.values())
        session.close()


class CrossingsInAStore(Crossings):
    """The same, with a store behind a cache that the applications share, as siblings do."""

    stored = True


TestCrossings = Crossings.TestCase
TestCrossings.settings = hypothesis_settings(max_examples=120, stateful_step_count=40, deadline=None)
TestCrossingsInAStore = CrossingsInAStore.TestCase
TestCrossingsInAStore.settings = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)
