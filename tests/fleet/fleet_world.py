"""What the fleet's tests share: scopes, a medium that fails on command, and a process as far as its session goes."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import resilient_auth as ra
from resilient_auth._msal.identity import Ownership, identity_given
from resilient_auth._msal.session import Session
from resilient_auth._msal.user_cache import UserCache
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.store import BackendFailed

SCOPE = ["https://graph.microsoft.com/.default"]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]
HOST, REALM = "sso.example", "t1"


class BreakableBackend(MemoryBackend):
    """A medium that fails on command."""

    def __init__(self, clock: Any = None) -> None:
        super().__init__(clock=clock)
        self.failing = False

    def _check(self) -> None:
        if self.failing:
            raise BackendFailed("connection_failed")

    def get(self, key: str) -> Any:
        self._check()
        return super().get(key)

    def get_many(self, keys: Any) -> Any:
        self._check()
        return super().get_many(keys)

    def keys(self, prefix: str) -> Any:
        self._check()
        return super().keys(prefix)

    def put(self, key: str, value: bytes, **options: Any) -> Any:
        self._check()
        return super().put(key, value, **options)

    def delete(self, key: str, **options: Any) -> Any:
        self._check()
        return super().delete(key, **options)

    def lock(self, name: str, holder: str, seconds: float) -> Any:
        self._check()
        return super().lock(name, holder, seconds)


class Process:
    """An application as far as its session goes, with memory of its own."""

    def __init__(self, backend: BreakableBackend, clock: Any, keys: list[bytes], *, realm: str = REALM) -> None:
        store = ra.SealedStore(backend, key=keys, clock=clock)
        self.session = Session(ra.Settings(store=store, clock=clock), {"token_cache": UserCache()})
        self.authority = f"https://{HOST}/{realm}"
        self._endpoint = f"{self.authority}/oauth2/v2.0/token"
        identity = identity_given({"client_id": "app", "authority": self.authority})
        about = type("Authority", (), {"token_endpoint": self._endpoint, "instance": HOST, "tenant": realm})
        self.session.identify(identity, lambda: Ownership.of(identity, about))
        assert self.session.shared_cache is not None
        self.shared_cache = self.session.shared_cache

    def add(self, who: str, secret: str, *, grant: str) -> None:
        """Add what an exchange brought, as MSAL does."""
        told = base64.urlsafe_b64encode(json.dumps({"uid": who, "utid": "t"}).encode()).decode()
        claims = {"oid": who, "tid": "t", "preferred_username": f"{who}@contoso.com"}
        self.session.look_at_cache().add(
            {
                "client_id": "app", "scope": ["s"], "token_endpoint": self._endpoint, "environment": HOST,
                "grant_type": grant, "data": {}, "skip_account_creation": grant == "refresh_token",
                "response": {
                    "access_token": f"at {secret}", "refresh_token": secret, "expires_in": 3600,
                    "client_info": told, "id_token_claims": claims,
                },
            }
        )  # fmt: skip

    def die(self) -> None:
        """Be killed: what isn't written never is."""
        self.shared_cache.after_fork()
        self.session.close()

    def refresh_token(self, who: str) -> str | None:
        """Find the refresh token that MSAL would use."""
        cache = self.session.look_at_cache()
        found = list(cache.search("RefreshToken", query={"home_account_id": f"{who}.t", "environment": HOST}))
        return found[0]["secret"] if found else None

    def accounts(self, who: str) -> list[str]:
        """Find the user by name, as `get_accounts` does."""
        return [entry["home_account_id"] for entry in self.session.accounts(f"{who}@contoso.com")]

    def sign_in(self, who: str, secret: str) -> bool:
        """Redeem a code, as far as memory and the store go; return whether the store knows of it."""
        with self.session.saved():
            self.add(who, secret, grant="authorization_code")
        # A look in the background, for what others had to write, may be about to begin.
        return not self.shared_cache._unwritten

    def sign_out(self, who: str) -> bool:
        """Remove a user; return whether the store knows of it."""
        subject = f"{who}.t"
        try:
            with self.session.erasing(subject):
                self.session.evict(subject)
        except ra.StoreUnavailable:
            return False
        return True

    def finds(self, who: str) -> bool:
        """Return whether a user is signed in, by what the store says where it can be asked."""
        with contextlib.suppress(ra.StoreUnavailable):
            self.shared_cache.load(f"{who}.t")
        return self.refresh_token(who) is not None


class ClockAhead:
    """The same clock on another machine, whose wall clock is so many seconds ahead."""

    def __init__(self, clock: Any, ahead: float) -> None:
        self._clock = clock
        self.ahead = ahead

    def wall(self) -> float:
        return float(self._clock.wall()) + self.ahead

    def monotonic(self) -> float:
        return float(self._clock.monotonic())

    def wait(self, condition: Any, timeout: float | None) -> bool:
        return bool(self._clock.wait(condition, timeout))
