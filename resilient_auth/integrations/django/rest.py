"""Verified tokens in Django REST framework: authentication and permission classes.

    class Entra(BearerAuthentication):
        verifier = resilient_auth.ClaimsVerifier.for_entra(...)
        realm = "orders"

    class Orders(APIView):
        authentication_classes = [Entra]
        permission_classes = [has_scopes("orders.read") | has_roles("Orders.Admin")]

Needs the extra: `pip install 'resilient-auth[drf]'`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from ..._policy.checks import require
from ..._process.extras import raise_missing
from ...errors import ConfigurationError, ResilientAuthError
from ...verify.claims import Claims
from ...verify.errors import InvalidToken
from ...verify.http import Guard, Refusal, TokenPlace, gravest, refused
from ...verify.http.guard import names

try:
    from rest_framework.authentication import BaseAuthentication
    from rest_framework.exceptions import APIException, PermissionDenied
    from rest_framework.permissions import BasePermission
    from rest_framework.response import Response

    from .guarding import arrived
    from .users import ClaimsUser, known
except ImportError as error:
    raise_missing(__name__, "drf", error)

__all__ = ["BearerAuthentication", "Refused", "exception_handler", "has_roles", "has_scopes"]


class Refused(APIException):  # type: ignore[misc]
    """Refuse a request, with the answer in it: 401, 403 or 503 whichever classes stand beside this one."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(detail=refusal.body, code=refusal.code)
        self.status_code = refusal.status
        #: Status, headers, stable code and a message for the user.
        self.refusal = refusal
        #: What the framework's own exception handler sends.
        self.auth_header = refusal.headers.get("WWW-Authenticate")
        self.wait = int(refusal.headers.get("Retry-After", 0)) or None


class BearerAuthentication(BaseAuthentication):  # type: ignore[misc]
    """Authenticate requests by their bearer token: `request.user` is the user, `request.auth` the claims.

    Make a subclass with a `verifier`. A request without a token is left to the other classes; a bad token is refused.
    Override `user_of` for another kind of user than `ClaimsUser`, such as `from_backends`.

    Raises:
        ConfigurationError: An attribute of the subclass is wrong; when the class is made.
    """

    #: A `resilient_auth.ClaimsVerifier`.
    verifier: ClassVar[Any] = None
    #: What every token must have, and be.
    scopes: ClassVar[str | Collection[str]] = ()
    roles: ClassVar[str | Collection[str]] = ()
    #: One of these scopes, or one of these roles.
    any_scopes: ClassVar[str | Collection[str]] = ()
    any_roles: ClassVar[str | Collection[str]] = ()
    app_only: ClassVar[bool | None] = None
    #: Accept a token past its expiry, where the verifier's owner allows it.
    grace: ClassVar[bool] = False
    #: The protection space's name in challenges.
    realm: ClassVar[str | None] = None
    #: Where the token is; the `Authorization` header when not given.
    token_in: ClassVar[TokenPlace | Sequence[TokenPlace] | None] = None

    _guard: ClassVar[Guard | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.verifier is None:
            return
        cls._guard = Guard(
            cls.verifier,
            scopes=cls.scopes,
            roles=cls.roles,
            any_scopes=cls.any_scopes,
            any_roles=cls.any_roles,
            app_only=cls.app_only,
            grace=cls.grace,
            realm=cls.realm,
            token_in=cls.token_in,
        )
        require(
            not cls._guard.asynchronous, "an asyncio verifier in a sync framework: use resilient_auth.ClaimsVerifier"
        )

    def authenticate(self, request: Any) -> tuple[Any, Claims] | None:
        """Return the user and the claims, None where the request has no bearer token."""
        guard = self._guard
        if guard is None:
            raise ConfigurationError(f"{type(self).__name__} has no verifier: set it in a subclass")
        try:
            claims = guard.admit(arrived(request))
            user = known(self.user_of(claims))
        except ResilientAuthError as error:
            if error.code == "missing":
                return None
            refusal = guard.refuse(error)
        else:
            request._request.claims = claims
            return user, claims
        raise Refused(refusal)

    def authenticate_header(self, request: Any) -> str:
        """Return the challenge to a request without a token."""
        return InvalidToken("missing", "").www_authenticate(self.realm)

    def user_of(self, claims: Claims) -> Any:
        """Return the user whom claims name, None for one who isn't known here."""
        return ClaimsUser(claims)


def has_scopes(*scopes: str) -> type[BasePermission]:
    """Make a permission class: the token must have all of these scopes.

    Raises:
        ConfigurationError: They aren't names.
    """
    wanted = names("scopes", scopes)
    require(bool(wanted), "name at least one scope, such as has_scopes('orders.read')")

    class HasScopes(BasePermission):  # type: ignore[misc]
        message = "This application isn't allowed to do this for you."
        code = "insufficient_scope"

        def has_permission(self, request: Any, view: Any) -> bool:
            return isinstance(request.auth, Claims) and request.auth.scopes.issuperset(wanted)

    return HasScopes


def has_roles(*roles: str) -> type[BasePermission]:
    """Make a permission class: the token must have all of these roles.

    Raises:
        ConfigurationError: They aren't names.
    """
    wanted = names("roles", roles)
    require(bool(wanted), "name at least one role, such as has_roles('Orders.Admin')")

    class HasRoles(BasePermission):  # type: ignore[misc]
        message = "You aren't allowed to do this."
        code = "insufficient_role"

        def has_permission(self, request: Any, view: Any) -> bool:
            return isinstance(request.auth, Claims) and request.auth.roles.issuperset(wanted)

    return HasRoles


def exception_handler(exc: Exception, context: Any) -> Response | None:
    """Answer every error of this package that a view raises; others as the framework does.

    Name it in the settings: `REST_FRAMEWORK = {"EXCEPTION_HANDLER":
    "resilient_auth.integrations.django.rest.exception_handler"}`.
    """
    # It reads the application's settings, which this module may be imported before.
    from rest_framework.views import exception_handler as frameworks_own

    answered = exc
    if isinstance(exc, PermissionDenied) and exc.get_codes() in ("insufficient_scope", "insufficient_role"):
        answered = InvalidToken(str(exc.get_codes()), str(exc.detail))
    met = gravest(answered)
    if met is not None:
        answered = Refused(refused(met))
    made = frameworks_own(answered, context)
    if made is not None and isinstance(answered, Refused):
        for name, value in answered.refusal.headers.items():
            made[name] = value
    return made
