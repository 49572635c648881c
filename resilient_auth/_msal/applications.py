"""MSAL's application classes, resilient.

This is more than 400 lines because each method of MSAL's stands here with its parameters.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import msal

from .._policy.checks import called, check_scopes
from .._policy.endpoint import origin_of
from .._process import forks
from .._process.causes import causes_of
from ..errors import ConfigurationError, ProviderUnavailable
from ..settings import Settings
from ..token import TokenRequest
from . import token_cache
from .exchange import original, transport_for
from .identity import identity_given
from .late_binding import applications
from .managed_identity import ManagedIdentityClient
from .methods import ResilientApplication, variant_of
from .plans import Plan
from .rotation.client import STAND_IN
from .rotation.trial import rotation_for
from .session import Session
from .user_cache import UserCache

if TYPE_CHECKING:
    from typing import Unpack

    from .declared import classes as originals
    from .declared.classes import ClientArguments, PublicArguments
else:
    originals = msal

__all__ = [
    "ClientApplication",
    "ConfidentialClientApplication",
    "ManagedIdentityClient",
    "PublicClientApplication",
]


_F = TypeVar("_F", bound=Callable[..., Any])


def _arguments(kind: type[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name the arguments of MSAL's constructor, which takes the first ones by position."""
    positional = [name for name in inspect.signature(msal.ClientApplication.__init__).parameters if name != "self"]
    if len(args) > len(positional):
        raise TypeError(f"{kind.__name__} takes at most {len(positional)} positional arguments, not {len(args)}")
    named = dict(zip(positional, args, strict=False))
    twice = named.keys() & kwargs.keys()
    if twice:
        raise TypeError(f"{kind.__name__} got {sorted(twice)[0]} twice")
    return {**named, **kwargs}


def _shown_as(kind: type[Any]) -> Callable[[_F], _F]:
    """Have an initialiser shown with the parameters of MSAL's and our own: to `inspect`, editors and mocks."""

    def decorate(function: _F) -> _F:
        theirs = inspect.signature(kind.__init__)
        parameters = list(theirs.parameters.values())
        ours = inspect.Parameter(
            "resilience", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Settings | None"
        )
        rest = parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
        parameters.insert(len(parameters) - rest, ours)
        function.__dict__["__signature__"] = theirs.replace(parameters=parameters)
        return function

    return decorate


class ClientApplication(ResilientApplication, originals.ClientApplication):
    """Do what `msal.ClientApplication` does, through an outage too.

    Args:
        client_id: As in MSAL; so are all further arguments.
        resilience: What to do otherwise than by default.

    Raises:
        ConfigurationError: An argument is wrong; raised before any network call.
        ValueError: The authority says that there is no such tenant.
    """

    _ra_arguments: dict[str, Any]

    @_shown_as(msal.ClientApplication)
    @called("resilience", elsewhere="settings")
    def __init__(
        self, client_id: str, *args: Any, resilience: Settings | None = None, **kwargs: Unpack[ClientArguments]
    ) -> None:
        arguments = _arguments(type(self), (client_id, *args), kwargs)
        named = identity_given(arguments)
        authority = origin_of(named.authority)
        session = Session(resilience, self.__dict__)
        rotation = rotation_for(arguments.get("client_credential"), str(client_id), authority, session.engine.clock)
        if rotation is not None:
            arguments["client_credential"] = rotation
        self.__dict__["_ra_rotation"] = rotation
        if arguments.get("token_cache") is None:
            arguments["token_cache"] = UserCache()
        elif session.settings.store is not None:
            raise ConfigurationError(
                "token_cache and Settings(store=...) exclude each other: the store would give what a session's cache "
                "holds to every other session. Leave out token_cache, and keep an account's home_account_id in the "
                "session; or leave out the store. import_msal_cache brings over what a cache holds"
            )
        transport = transport_for(session, client_id, arguments)
        identity = replace(named, verified=transport.wire.identity.verified)
        # MSAL takes our http_client, and so must not be given what would build its own.
        arguments.update(http_client=transport)
        self.__dict__.update(
            _ra_arguments=arguments,
            _ra_initialising=None,
            _ra_signers={},
            client_id=client_id,
            token_cache=arguments["token_cache"],
        )
        self._ra_begin(session, self, type(self), transport, authority)
        session.identify(identity, self._ra_ownership)
        # While the provider is down MSAL couldn't be built. We are, and go on as soon as it is up.
        with contextlib.suppress(ProviderUnavailable):
            self._ra_bind()
        self._ra_pin()

    def _ra_initialise(self) -> None:
        given = self.__dict__["token_cache"]
        arguments = self._ra_arguments | {"token_cache": given}
        if self._ra_rotation is not None:
            arguments["client_credential"] = STAND_IN
        self.__dict__["_ra_initialising"] = threading.get_ident()
        try:
            # From MSAL's own initialiser on: those of a subclass of ours have run, or are running.
            original(self, "__init__")(**arguments)
        except ValueError as error:
            # MSAL takes every ValueError of its http_client for an authority that isn't there.
            wrong = next((cause for cause in causes_of(error) if isinstance(cause, ConfigurationError)), None)
            if wrong is None or wrong is error:
                raise
            raise wrong from None
        finally:
            self.__dict__["_ra_initialising"] = None
            # MSAL replaces a cache that is falsy, such as one with a length of 0.
            self.__dict__["token_cache"] = given
        self._ra_ready()
        self._ra_session.announce()

    def _ra_pin(self) -> None:
        """Keep fresh what the settings name."""

    def _ra_by_auth_code_flow(
        self, auth_code_flow: dict[str, Any], auth_response: Mapping[str, Any], scopes: Any = None, **kwargs: Any
    ) -> Plan:
        # MSAL takes the claims challenge out of what it is given: a second try must find it.
        flow, name = copy.deepcopy(auth_code_flow), "acquire_token_by_auth_code_flow"
        wanted = [] if scopes is None else scopes
        return self._ra_flow(flow.get("state"), wanted, name, flow, auth_response, scopes, **kwargs)

    def acquire_token_by_auth_code_flow(
        self, auth_code_flow: dict[str, Any], auth_response: Mapping[str, Any], scopes: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Redeem an authorization code, as MSAL's method of this name; it is never sent twice by itself."""
        return self._ra_by_auth_code_flow(auth_code_flow, auth_response, scopes, **kwargs).run()

    def _ra_by_authorization_code(self, code: str, scopes: Any, *args: Any, **kwargs: Any) -> Plan:
        return self._ra_flow(code, scopes, "acquire_token_by_authorization_code", code, scopes, *args, **kwargs)

    def acquire_token_by_authorization_code(
        self, code: str, scopes: list[str], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Redeem an authorization code, as MSAL's method of this name; it is never sent twice by itself."""
        return self._ra_by_authorization_code(code, scopes, *args, **kwargs).run()

    def _ra_by_refresh_token(self, refresh_token: str, scopes: Any, **kwargs: Any) -> Plan:
        name = "acquire_token_by_refresh_token"
        return self._ra_flow(refresh_token, scopes, name, refresh_token, scopes, **kwargs)

    def acquire_token_by_refresh_token(self, refresh_token: str, scopes: list[str], **kwargs: Any) -> dict[str, Any]:
        """Bring a refresh token from elsewhere into the cache, as MSAL's method of this name."""
        return self._ra_by_refresh_token(refresh_token, scopes, **kwargs).run()

    def _ra_by_username_password(self, username: str, password: str, scopes: Any, *args: Any, **kwargs: Any) -> Plan:
        name = "acquire_token_by_username_password"
        return self._ra_flow(username, scopes, name, username, password, scopes, *args, **kwargs)

    def acquire_token_by_username_password(
        self, username: str, password: str, scopes: list[str], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Sign in with a password, as MSAL's method of this name; a password is never sent twice by itself (G6)."""
        return self._ra_by_username_password(username, password, scopes, *args, **kwargs).run()


class PublicClientApplication(ClientApplication, originals.PublicClientApplication):
    """Do what `msal.PublicClientApplication` does, through an outage too.

    Interactive sign-in and device-code polling run on the caller's thread, as MSAL has them.
    """

    @_shown_as(msal.PublicClientApplication)
    def __init__(
        self, client_id: str, *args: Any, resilience: Settings | None = None, **kwargs: Unpack[PublicArguments]
    ) -> None:
        super().__init__(client_id, *args, resilience=resilience, **kwargs)  # type: ignore[misc]

    def keep_fresh(self, scopes: list[str], account: dict[str, Any]) -> None:
        """Refresh a user's token ahead of need from now on, with or without traffic (G5).

        Args:
            scopes: As for `acquire_token_silent`.
            account: As for `acquire_token_silent`.
        """
        _keep_silent_fresh(self, scopes, account)

    def acquire_token_interactive(self, scopes: list[str], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Sign a user in with a browser or a broker, as MSAL's method of this name."""
        check_scopes(scopes, empty=True)
        self._ra_bind()
        app = self._ra_seeing_tokens()
        with self._ra_session.saved():
            result: dict[str, Any] = original(app, "acquire_token_interactive")(scopes, *args, **kwargs)
        return result

    def _ra_initiate_device_flow(self, scopes: list[str] | None = None, **kwargs: Any) -> Plan:
        return self._ra_flow(None, scopes or [], "initiate_device_flow", scopes, **kwargs)

    def initiate_device_flow(
        self, scopes: list[str] | None = None, *, claims_challenge: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Begin a device flow, as MSAL's method of this name."""
        return self._ra_initiate_device_flow(scopes, claims_challenge=claims_challenge, **kwargs).run()

    def acquire_token_by_device_flow(self, flow: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Poll until the user has signed in, as MSAL's method of this name; a failing provider doesn't end it."""
        self._ra_bind()
        app = self._ra_seeing_tokens()
        with self._ra_session.saved():
            result: dict[str, Any] = original(app, "acquire_token_by_device_flow")(flow, *args, **kwargs)
        return result


class ConfidentialClientApplication(ClientApplication, originals.ConfidentialClientApplication):
    """Do what `msal.ConfidentialClientApplication` does, through an outage too."""

    def _ra_pin(self) -> None:
        for scopes in self._ra_session.settings.keep_fresh:
            self.keep_fresh(list(scopes))

    def keep_fresh(self, scopes: list[str], account: dict[str, Any] | None = None) -> None:
        """Get a token and refresh it ahead of need from now on, with or without traffic (G5). Returns at once.

        Args:
            scopes: As for `acquire_token_for_client`, or with an account as for `acquire_token_silent`.
            account: Whose token; None for the application's own.
        """
        if account is not None:
            _keep_silent_fresh(self, scopes, account)
        else:
            self._ra_keep_fresh(self._ra_for_client(scopes, None, None, None, {}))

    def acquire_token_for_client(
        self,
        scopes: list[str],
        claims_challenge: str | None = None,
        fmi_path: str | None = None,
        forwarded_client_claims: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Get the application's own token, as MSAL's method of this name; a held one is served in a microsecond."""
        if scopes.__class__ is list and not (claims_challenge or fmi_path or forwarded_client_claims or kwargs):
            answer = self._ra_hit(tuple(scopes))
            if answer is not None:
                return answer
        return self._ra_for_client(scopes, claims_challenge, fmi_path, forwarded_client_claims, kwargs).run()

    def _ra_for_client(
        self,
        scopes: Any,
        claims_challenge: str | None,
        fmi_path: str | None,
        forwarded_client_claims: str | None,
        kwargs: dict[str, Any],
    ) -> Plan:
        wanted = check_scopes(scopes)
        if kwargs.get("force_refresh"):
            raise ConfigurationError("acquire_token_for_client takes no force_refresh: tokens are refreshed ahead")
        if fmi_path is not None and not isinstance(fmi_path, str):
            raise ConfigurationError(f"fmi_path must be a string, not {type(fmi_path).__name__}")
        variant = variant_of(kwargs, fmi_path=fmi_path, client_claims=forwarded_client_claims)
        options = dict(kwargs)
        if fmi_path is not None:
            options["fmi_path"] = fmi_path
        if forwarded_client_claims is not None:
            options["forwarded_client_claims"] = forwarded_client_claims
        if claims_challenge is not None:
            options["claims_challenge"] = claims_challenge
        return self._ra_plan(
            TokenRequest(self._ra_identity.authority, self.client_id, "client_credentials", wanted, None, variant),
            lambda app: original(app, "acquire_token_for_client")(list(scopes), **copy.deepcopy(options)),
            signature=None if options else tuple(scopes),
            claims=claims_challenge,
            regional=True,
        )

    def remove_tokens_for_client(self) -> None:
        """Forget the application's own tokens, as MSAL's method of this name, in our memory at once too.

        Raises:
            StoreUnavailable: They are forgotten here, and are still in the store; it is tried again.
        """
        self._ra_bind()
        memory = self._ra_session.memory
        memory.drop_subject(None, "removed")
        try:
            with self._ra_session.erasing(None):
                original(self._ra_seeing_tokens(), "remove_tokens_for_client")()
        finally:
            memory.drop_subject(None, "removed")

    def acquire_token_on_behalf_of(
        self,
        user_assertion: str,
        scopes: list[str],
        claims_challenge: str | None = None,
        forwarded_client_claims: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Exchange a user's token for one to an API behind, as MSAL's method of this name.

        The result is held for this very assertion and no other, and so is served again for as long as it is valid.
        """
        return self._ra_on_behalf_of(user_assertion, scopes, claims_challenge, forwarded_client_claims, **kwargs).run()

    def _ra_on_behalf_of(
        self,
        user_assertion: str,
        scopes: Any,
        claims_challenge: str | None = None,
        forwarded_client_claims: str | None = None,
        **kwargs: Any,
    ) -> Plan:
        wanted = check_scopes(scopes)
        if not isinstance(user_assertion, (str, bytes)) or not user_assertion:
            raise ConfigurationError("user_assertion must be the token that the caller sent, as a string")
        raw = user_assertion.encode() if isinstance(user_assertion, str) else user_assertion
        variant = variant_of(kwargs, client_claims=forwarded_client_claims)
        options = dict(kwargs)
        if claims_challenge is not None:
            options["claims_challenge"] = claims_challenge
        if forwarded_client_claims is not None:
            options["forwarded_client_claims"] = forwarded_client_claims
        return self._ra_plan(
            TokenRequest(
                self._ra_identity.authority,
                self.client_id,
                "on_behalf_of",
                wanted,
                hashlib.sha256(raw).hexdigest(),
                variant,
            ),
            lambda app: original(app, "acquire_token_on_behalf_of")(
                user_assertion, list(scopes), **copy.deepcopy(options)
            ),
            claims=claims_challenge,
            # MSAL's cache can't tell one assertion from another, and an assertion isn't kept longer than its call.
            repeatable=False,
            readable=False,
            extras=True,
        )

    def _ra_by_user_federated_identity_credential(
        self, scopes: Any, assertion: str | Callable[[], str], *args: Any, **kwargs: Any
    ) -> Plan:
        check_scopes(scopes, empty=True)
        return self._ra_once(
            assertion,
            lambda app: original(app, "acquire_token_by_user_federated_identity_credential")(
                scopes, assertion() if callable(assertion) else assertion, *args, **kwargs
            ),
        )

    def acquire_token_by_user_federated_identity_credential(
        self, scopes: list[str], assertion: str | Callable[[], str], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Exchange a federated identity credential for a user's token, as MSAL's method of this name.

        The assertion may be a function, such as `assertion_from_application` returns.
        """
        return self._ra_by_user_federated_identity_credential(scopes, assertion, *args, **kwargs).run()


def _keep_silent_fresh(app: Any, scopes: list[str], account: dict[str, Any]) -> None:
    plan = app._ra_silent(scopes, account, None, False, None, None, None, {}, silent=False)
    if plan is None:
        raise ConfigurationError("account must be one that get_accounts returned, not None")
    app._ra_keep_fresh(plan)


@forks.renewed
def _after_fork() -> None:
    token_cache.after_fork()
    for app in applications():
        app._ra_after_fork()


# What another thread is in the middle of writing to MSAL's cache should be there as a whole in the child.
forks.around(token_cache.before_fork, token_cache.after_fork_in_parent)
