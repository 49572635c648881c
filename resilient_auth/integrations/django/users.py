"""Users made of a token's claims, for `request.user`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from ...verify.claims import Claims
from ...verify.errors import InvalidToken

__all__ = ["ClaimsUser", "become", "from_backends", "known"]


class ClaimsUser:
    """Be the user that a token's claims name, without a database.

    What Django calls a permission is a scope or a role of the token's: `permission_required("orders.read")` works.

    Args:
        claims: The verified token's.
    """

    is_authenticated = True
    is_anonymous = False
    is_active = True
    is_staff = False
    is_superuser = False

    def __init__(self, claims: Claims) -> None:
        #: The verified token's.
        self.claims = claims

    @property
    def pk(self) -> str:
        """Tell users apart: by issuer and subject, which are somebody else's in another tenant."""
        return f"{self.claims.issuer}|{self.claims.subject}"

    id = pk

    @property
    def username(self) -> str:
        """Return a name to show; it may change, and be somebody else's later."""
        return self.claims.username or self.claims.subject

    def get_username(self) -> str:
        """Return what identifies the user."""
        return self.pk

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Return whether the token has this scope or role; never for one object alone."""
        return obj is None and perm in self.get_all_permissions()

    def has_perms(self, perm_list: Iterable[str], obj: object = None) -> bool:
        """Return whether the token has all of these."""
        return all(self.has_perm(perm, obj) for perm in perm_list)

    def has_module_perms(self, app_label: str) -> bool:
        """Return whether the token has a scope or role that begins with this name and a dot."""
        return any(perm.startswith(f"{app_label}.") for perm in self.get_all_permissions())

    def get_all_permissions(self, obj: object = None) -> frozenset[str]:
        """Return the token's scopes and roles."""
        return frozenset() if obj is not None else self.claims.scopes | self.claims.roles

    async def ahas_perm(self, perm: str, obj: object = None) -> bool:
        """Return what `has_perm` does."""
        return self.has_perm(perm, obj)

    async def ahas_perms(self, perm_list: Iterable[str], obj: object = None) -> bool:
        """Return what `has_perms` does."""
        return self.has_perms(perm_list, obj)

    async def ahas_module_perms(self, app_label: str) -> bool:
        """Return what `has_module_perms` does."""
        return self.has_module_perms(app_label)

    def __str__(self) -> str:
        return self.username

    def __repr__(self) -> str:
        return f"ClaimsUser({self.claims!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClaimsUser) and self.pk == other.pk

    def __hash__(self) -> int:
        return hash(self.pk)


def from_backends(claims: Claims) -> Any:
    """Return the user that the authentication backends of the settings know by these claims; None where none does."""
    # It needs the application's settings, which this module is imported before.
    from django.contrib.auth import authenticate

    return authenticate(None, claims=claims)


def become(request: Any, user: Any) -> None:
    """Make this user the request's, for async views too."""

    async def found(user: Any) -> Any:
        return user

    request.user = user
    request.auser = partial(found, user)


def known(user: Any) -> Any:
    """Return a user who was found.

    Raises:
        InvalidToken: There is none.
    """
    if user is None:
        raise InvalidToken("unknown_user", "the token's user isn't known here")
    return user
