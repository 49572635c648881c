"""Who exists and what is outstanding: users, authorization codes, device codes and refresh tokens."""

from __future__ import annotations

import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import cachetools

from ..ledger import fingerprint
from .realms import tenant_id

CODE_LIFETIME: Final = 600.0
DEVICE_CODE_LIFETIME: Final = 900.0

_OUTSTANDING_LIMIT: Final = 100_000
_USER_LIMIT: Final = 100_000
_USER_CODE_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass(frozen=True)
class User:
    """A person in a tenant's directory."""

    username: str
    oid: str
    home_tid: str
    name: str
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Audience:
    """Whom a token is for: a client that acts for a user, or for itself where `user` is None."""

    client_id: str
    user: User | None
    scopes: tuple[str, ...]
    resource: str = ""
    cae: bool = False
    expired: bool = False
    nonce: str | None = None
    #: The provider's own session, in which an ID token is issued.
    sid: str | None = None
    #: The authentication context that was asked for.
    context: str | None = None
    #: The refresh token that stays; None for a new one.
    refresh: str | None = None

    @property
    def subject(self) -> str:
        """The object id of the user, or of the client's service principal."""
        return self.user.oid if self.user else str(uuid.uuid5(uuid.NAMESPACE_URL, f"client:{self.client_id}"))


@dataclass(frozen=True)
class Code:
    """What an authorization code stands for."""

    audience: Audience
    redirect_uri: str
    expires_at: float
    #: Where it may be redeemed; see `Realm.name`.
    realm: str
    challenge: str | None = None
    challenge_method: str = "plain"


@dataclass
class DeviceCode:
    """A sign-in that waits for its user."""

    user_code: str
    client_id: str
    scopes: tuple[str, ...]
    expires_at: float
    #: Where it may be redeemed; see `Realm.name`.
    realm: str
    polled_at: float | None = None
    user: User | None = None


@dataclass
class RefreshToken:
    """What a refresh token stands for."""

    user: User
    client_id: str
    scopes: tuple[str, ...]
    expires_at: float
    #: Where it may be redeemed; see `Realm.name`.
    realm: str
    used: bool = False
    revoked: bool = False
    #: The provider's own session, in which it was issued.
    sid: str | None = None


_Item = TypeVar("_Item")


class Outstanding(Generic[_Item]):
    """Secrets that were handed out, known by their hash; the oldest go when there are too many."""

    def __init__(self) -> None:
        self._items: cachetools.FIFOCache[str, _Item] = cachetools.FIFOCache(_OUTSTANDING_LIMIT)

    def hand_out(self, item: _Item) -> str:
        """Remember an item and return the secret that stands for it."""
        secret = secrets.token_urlsafe(48)
        self._items[fingerprint(secret)] = item
        return secret

    def find(self, secret: str) -> _Item | None:
        """Return what a secret stands for."""
        found: _Item | None = self._items.get(fingerprint(secret))
        return found

    def redeem(self, secret: str) -> _Item | None:
        """Return what a secret stands for, this once."""
        found: _Item | None = self._items.pop(fingerprint(secret), None)
        return found

    def values(self) -> tuple[_Item, ...]:
        """Return all that is outstanding."""
        return tuple(self._items.values())


class Directory:
    """Users and outstanding secrets. Everything here runs on the emulator's loop."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}
        self.codes: Outstanding[Code] = Outstanding()
        self.device_codes: Outstanding[DeviceCode] = Outstanding()
        self.refresh_tokens: Outstanding[RefreshToken] = Outstanding()
        for username in ("ann@contoso.com", "bob@contoso.com"):
            self.add_user(username, "pw")

    @property
    def users(self) -> tuple[User, ...]:
        """Every user, in order of creation."""
        return tuple(self._users.values())

    def add_user(self, username: str, password: str | None = None, oid: str | None = None) -> User:
        """Create or replace a user, whose home is the tenant of the name's domain."""
        if len(self._users) >= _USER_LIMIT:
            raise ValueError(f"the emulator holds at most {_USER_LIMIT} users")
        key = username.lower()
        name, _, domain = username.partition("@")
        user = User(
            username,
            oid or str(uuid.uuid5(uuid.NAMESPACE_URL, f"user:{key}")),
            tenant_id(domain or "contoso"),
            name.replace(".", " ").title(),
            password,
        )
        self._users[key] = user
        return user

    def find_user(self, username_or_oid: str) -> User | None:
        """Return the user of a name or an object id."""
        key = username_or_oid.lower()
        return self._users.get(key) or next((user for user in self._users.values() if user.oid == key), None)

    def user_of_assertion(self, assertion: str) -> User:
        """Return the user that a foreign assertion stands for: always the same one for the same text."""
        mark = fingerprint(assertion)[:12]
        username = f"user-{mark}@contoso.com"
        return User(username, str(uuid.uuid5(uuid.NAMESPACE_URL, mark)), tenant_id("contoso"), f"User {mark}")

    def start_device_code(self, client_id: str, scopes: tuple[str, ...], realm: str) -> tuple[str, str]:
        """Return the secret device code and the code that its user types."""
        user_code = "".join(secrets.choice(_USER_CODE_LETTERS) for _ in range(9))
        expires_at = time.time() + DEVICE_CODE_LIFETIME
        return self.device_codes.hand_out(DeviceCode(user_code, client_id, scopes, expires_at, realm)), user_code

    def approve_device(self, user_code: str, user: User) -> None:
        """Let a waiting device sign in as a user.

        Raises:
            ValueError: No device waits with this code.
        """
        for waiting in self.device_codes.values():
            if waiting.user_code == user_code.strip().upper():
                waiting.user = user
                return
        raise ValueError("no device waits with this user code")

    def revoke_refresh_tokens(self, key: str) -> None:
        """Refuse from now on the refresh tokens of an object id or a client id."""
        for token in self.refresh_tokens.values():
            if key in (token.user.oid, token.client_id):
                token.revoked = True
