"""MSAL's methods that look at what is held, made resilient; `applications` puts them on MSAL's classes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from msal.token_cache import _EXT_CACHE_KEY_EXCLUDED_FIELDS, _compute_ext_cache_key

from .._policy.checks import check_scopes
from .._process import forks
from .._wire.discovery import aliases_of
from ..errors import ConfigurationError, ProviderUnavailable, StoreUnavailable
from ..token import Token, TokenRequest, fingerprint
from .exchange import Exchanges, is_told_apart_by_msal, original
from .identity import Identity, Ownership
from .plans import Plan, plan_token
from .results import read

__all__ = ["ResilientApplication", "variant_of"]

_UNKEYED = _EXT_CACHE_KEY_EXCLUDED_FIELDS - {"key_id"}


class ResilientApplication(Exchanges):
    """What both kinds of application have in common."""

    def _ra_silent(
        self,
        scopes: Any,
        account: Any,
        authority: Any,
        force_refresh: Any,
        claims_challenge: str | None,
        forwarded_client_claims: str | None,
        auth_scheme: Any,
        kwargs: dict[str, Any],
        *,
        silent: bool,
        readable: bool = True,
    ) -> Plan | None:
        """Plan the silent flow: held token, else refresh token (G4).

        With `readable` off, access tokens in MSAL's cache aren't this application's, and refresh tokens are.
        """
        if not account:
            return None
        wanted = check_scopes(scopes)
        options = dict(kwargs, claims_challenge=claims_challenge, forwarded_client_claims=forwarded_client_claims)
        if authority is not None:
            options["authority"] = authority

        def ask(app: Any) -> Any:
            return original(app, "acquire_token_silent_with_error")(
                list(scopes), account, force_refresh=bool(force_refresh), **copy.deepcopy(options)
            )

        if auth_scheme is not None or self.__dict__.get("_enable_broker") or _from_cloud_shell(account):
            options["auth_scheme"] = auth_scheme
            plan = self._ra_once(account.get("home_account_id"), ask, hide=bool(force_refresh))
            finish = plan.finish
            plan.finish = lambda served: _none_for_error(finish(served)) if silent else finish(served)
            return plan
        subject = account.get("home_account_id")
        if not subject:
            return None  # MSAL would give such an account what the application got for itself
        variant = variant_of(kwargs, client_claims=forwarded_client_claims)
        request = TokenRequest(self._ra_identity.authority, self.client_id, "silent", wanted, subject, variant)
        plain = not (kwargs or forwarded_client_claims)
        plan = self._ra_plan(
            request,
            ask,
            signature=(subject, tuple(scopes)) if plain else None,
            claims=claims_challenge,
            force=bool(force_refresh),
            silent=silent,
            readable=readable,
        )
        plan.moot = lambda: not self._ra_may_have_refresh_token(subject)
        return plan

    def _ra_may_have_refresh_token(self, subject: Any) -> bool:
        """Return whether MSAL would have anything to ask with for a user, as far as that is known."""
        shared_cache = self._ra_session.shared_cache
        if not self._ra_bound or (shared_cache is not None and not shared_cache.knows(subject)):
            return True
        session = self._ra_session
        cache, instance = session.look_at_cache(), self._ra_origin.authority.instance
        try:
            return any(
                session.owns("RefreshToken", msal_entry)
                for environment in (instance, *aliases_of(instance))
                for msal_entry in list(
                    cache.search("RefreshToken", query={"environment": environment, "home_account_id": subject})
                )
            )
        except Exception as error:  # noqa: BLE001 - a class of the owner's may raise anything
            session.reading.began(error)
            return True

    def _ra_plan(
        self,
        request: TokenRequest,
        ask: Callable[[Any], Any],
        *,
        signature: Any = None,
        claims: str | None = None,
        force: bool = False,
        silent: bool = False,
        repeatable: bool = True,
        readable: bool = True,
        extras: bool = False,
        regional: bool = False,
    ) -> Plan:
        """Plan a call whose token is held: by our memory, and by MSAL's cache where that can be read."""
        session = self._ra_session
        if claims:
            self._ra_drop_challenged(request)
        return plan_token(
            session,
            request,
            self._ra_authorities,
            partial(self._ra_exchange, ask, extras=extras, regional=regional),
            repeatable=repeatable and not (claims or force),
            read=partial(self._ra_read, request=request) if readable else None,
            discard=partial(session.discard, request, partial(self._ra_entries, request)),
            signature=None if claims or force else signature,
            claims=claims,
            force=force,
            silent=silent,
        )

    def _ra_ownership(self) -> Ownership:
        """Say what in MSAL's cache is this application's, as far as that is known."""
        if not self._ra_bound:
            return Ownership.before_discovery(self._ra_identity)
        return Ownership.of(self._ra_identity, self._ra_origin.authority)

    @property
    def _ra_identity(self) -> Identity:
        identity = self._ra_session.identity
        assert identity is not None  # noqa: S101 - it is said at construction
        return identity

    def _ra_queries(self, request: TokenRequest) -> list[dict[str, Any]]:
        """Say how MSAL looks the token up in its cache; in no way before discovery, or if it can't tell it from others.

        A cache that another library filled may know the authority by another of its names.
        """
        queries: list[dict[str, Any]] = []
        if not self._ra_bound or not is_told_apart_by_msal(request):
            return queries
        authority = self._ra_origin.authority
        extended, _, key_id = request.variant.partition(" ")
        for environment in (authority.instance, *aliases_of(authority.instance)):
            query = {
                "client_id": self.client_id,
                "environment": environment,
                "realm": authority.tenant,
                "home_account_id": request.subject,
                **({"ext_cache_key": extended} if extended else {}),
                **({"key_id": key_id} if key_id else {}),
            }
            queries.append(query)
        return queries

    def _ra_read(self, cache: Any, request: TokenRequest) -> Token | None:
        """Look into MSAL's cache, which another object or an earlier run may have filled."""
        for query in self._ra_queries(request):
            found = read(self._ra_session, cache, request.scopes, query)
            if found is not None:
                return found
        return None

    def _ra_entries(self, request: TokenRequest) -> Iterator[dict[str, Any]]:
        """List the access tokens of the application's in MSAL's cache that answer a request."""
        session = self._ra_session
        cache = session.look_at_cache()
        for query in self._ra_queries(request):
            for msal_entry in list(cache.search("AccessToken", target=list(request.scopes), query=query, now=0)):
                if session.owns("AccessToken", msal_entry):
                    yield msal_entry

    def _ra_drop_challenged(self, request: TokenRequest) -> None:
        """Let nobody be served the token that an API has just refused (G17)."""
        session = self._ra_session
        cache = session.look_at_cache()
        with session.discarding():
            for msal_entry in self._ra_entries(request):
                cache.remove_at(msal_entry)
        entry = session.memory.find(request)
        if entry is not None and entry.token is not None:
            session.memory.drop_token(entry, entry.token, "claims_challenge")

    def acquire_token_silent(
        self,
        scopes: list[str],
        account: Any,
        authority: str | None = None,
        force_refresh: bool | None = False,
        claims_challenge: str | None = None,
        forwarded_client_claims: str | None = None,
        auth_scheme: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any] | None:
        """Get a user's token without interaction, as MSAL's method of this name; a held one is served at once."""
        special = authority or force_refresh or claims_challenge or forwarded_client_claims or auth_scheme or kwargs
        if not special and scopes.__class__ is list and isinstance(account, dict):
            answer = self._ra_hit((account.get("home_account_id"), tuple(scopes)))
            if answer is not None:
                return answer
        plan = self._ra_silent(
            scopes, account, authority, force_refresh, claims_challenge, forwarded_client_claims, auth_scheme, kwargs,
            silent=True,
        )  # fmt: skip
        return None if plan is None else plan.run()

    def acquire_token_silent_with_error(
        self,
        scopes: list[str],
        account: Any,
        authority: str | None = None,
        force_refresh: bool | None = False,
        claims_challenge: str | None = None,
        forwarded_client_claims: str | None = None,
        auth_scheme: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any] | None:
        """Get a user's token without interaction, as MSAL's method of this name, with the error dict of a denial."""
        special = authority or force_refresh or claims_challenge or forwarded_client_claims or auth_scheme or kwargs
        if not special and scopes.__class__ is list and isinstance(account, dict):
            answer = self._ra_hit((account.get("home_account_id"), tuple(scopes)))
            if answer is not None:
                return answer
        plan = self._ra_silent(
            scopes, account, authority, force_refresh, claims_challenge, forwarded_client_claims, auth_scheme, kwargs,
            silent=False,
        )  # fmt: skip
        return None if plan is None else plan.run()

    def get_accounts(self, username: str | None = None) -> list[dict[str, Any]]:
        """List the accounts in the cache, as MSAL's method of this name; by user name at a cost that doesn't grow.

        Raises:
            StoreUnavailable: There are none in memory, and the store can't tell whether it has any.
        """
        session = self._ra_session
        if username is not None and not isinstance(username, str):
            raise ConfigurationError(f"username must be a text, not {type(username).__name__}")
        if username:
            found = self._ra_accounts_among(session.accounts(username.lower()))
            if found:
                return found
        else:
            try:
                session.fetch_accounts(None)
            except StoreUnavailable:
                if not any(
                    session.owns("Account", msal_entry) for msal_entry in session.look_at_cache().search("Account")
                ):
                    raise
        try:
            self._ra_bind()
        except ProviderUnavailable:
            # MSAL can't be asked, and needn't be: it would look at nothing else.
            msal_entries = list(session.look_at_cache().search("Account"))
            named = [e for e in msal_entries if not username or str(e.get("username")).lower() == username.lower()]
            return self._ra_accounts_among(named)
        accounts: list[dict[str, Any]] = original(self._ra_seeing_tokens(), "get_accounts")(username=username)
        return accounts

    def _ra_accounts_among(self, msal_entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Have MSAL tell the accounts of this authority among some entries."""
        msal_entries = [msal_entry for msal_entry in msal_entries if self._ra_session.owns("Account", msal_entry)]
        if not msal_entries:
            return []
        host = self._ra_origin.authority.instance if self._ra_bound else urlsplit(self._ra_authority).hostname
        shadow = object.__new__(self._ra_kind)
        shadow.__dict__["token_cache"] = _Entries(msal_entries)
        found: list[dict[str, Any]] = original(shadow, "_find_msal_accounts")(environment=host)
        return found

    def remove_account(self, account: Any) -> None:
        """Sign a user out, as MSAL's method of this name, in our memory at once too, and in an outage too.

        Raises:
            StoreUnavailable: They are signed out here, and the store doesn't know of it yet; it is tried again.
        """
        session, subject = self._ra_session, _checked(account).get("home_account_id")
        forks.notice()
        session.memory.drop_subject(subject, "removed")
        try:
            with session.erasing(subject):
                try:
                    self._ra_bind()
                    # What the user has in other tenants of this cloud goes too, as in MSAL.
                    app = self._ra_seeing_tokens(owns=lambda _, msal_entry: session.owns("Account", msal_entry))
                    original(app, "remove_account")(account)
                except ProviderUnavailable:
                    if not session.evict(subject):
                        raise
        finally:
            session.memory.drop_subject(subject, "removed")


class _Entries:
    """A cache that holds some entries, for MSAL to tell as accounts."""

    def __init__(self, msal_entries: list[dict[str, Any]]) -> None:
        self._entries = msal_entries

    def search(self, _credential_type: str, *, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return (e for e in self._entries if e.get("environment") == query.get("environment"))


def variant_of(kwargs: dict[str, Any], **extra: str | None) -> str:
    """Distinguish calls that MSAL's cache tells apart, by what they send beside the usual: hashes, no secrets."""
    given = kwargs.get("data")
    data = dict(given) if isinstance(given, dict) else {}
    for name, value in extra.items():
        if value is not None:
            data[name] = value
    if not data:
        return ""
    # MSAL leaves what usually goes out by itself out of its key: here it was given beside that.
    other = {name: str(value) for name, value in data.items() if name in _UNKEYED and value}
    rest = fingerprint(json.dumps(other, sort_keys=True)) if other else ""
    return f"{_compute_ext_cache_key(data)} {data.get('key_id') or ''} {rest}".rstrip()


def _none_for_error(result: Any) -> Any:
    return result if result and "error" not in result else None


def _from_cloud_shell(account: Any) -> bool:
    return bool(_checked(account).get("authority_type") == "CLOUDSHELL")


def _checked(account: Any) -> Any:
    if not isinstance(account, Mapping):
        raise ConfigurationError(f"account must be one that get_accounts returned, not {type(account).__name__}")
    return account
