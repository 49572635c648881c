"""An authentication backend: the database's user that a verified token's claims name.

AUTHENTICATION_BACKENDS = ["resilient_auth.integrations.django.backend.ClaimsBackend"]

@authenticated(verifier, user=from_backends)
def read(request):
    return JsonResponse({"for": request.user.get_username()})
"""

from __future__ import annotations

import hashlib
from typing import Any

from ..._process.extras import raise_missing
from ...verify.claims import Claims

try:
    from asgiref.sync import sync_to_async
    from django.contrib.auth import get_user_model
except ImportError as error:
    raise_missing(__name__, "django", error)

__all__ = ["ClaimsBackend"]


class ClaimsBackend:
    """Find the user of claims in the database, or make one. Applications' own tokens have none.

    Claims are what a verifier gave: `authenticate(request, claims=claims)`. A password is never looked at. Override
    `username_of` to go by another name, and `configure_user` to take names, addresses or groups over.
    """

    #: Whether a user who comes for the first time is made.
    create_unknown_user = True

    def authenticate(self, request: Any, claims: Claims | None = None) -> Any:
        """Return the user, None where these aren't a user's claims or the user isn't known or active."""
        if not isinstance(claims, Claims) or claims.app_only:
            return None
        model = get_user_model()
        name = {model.USERNAME_FIELD: self.username_of(claims)}
        created = False
        if self.create_unknown_user:
            user, created = model._default_manager.get_or_create(**name)
            if created:
                user.set_unusable_password()
                user.save()
        else:
            user = model._default_manager.filter(**name).first()
        if user is None or not getattr(user, "is_active", True):
            return None
        return self.configure_user(request, user, claims, created=created)

    async def aauthenticate(self, request: Any, claims: Claims | None = None) -> Any:
        """Return what `authenticate` does."""
        return await sync_to_async(self.authenticate)(request, claims=claims)

    def get_user(self, user_id: Any) -> Any:
        """Return the user of a session, None for one who is gone or isn't active any more."""
        user = get_user_model()._default_manager.filter(pk=user_id).first()
        return user if getattr(user, "is_active", True) else None

    async def aget_user(self, user_id: Any) -> Any:
        """Return what `get_user` does."""
        return await sync_to_async(self.get_user)(user_id)

    def username_of(self, claims: Claims) -> str:
        """Return the user's name here: issuer and subject, since a subject is somebody else's at another issuer.

        A name that is too long for the column is a hash of both.
        """
        model = get_user_model()
        name = f"{claims.issuer}|{claims.subject}"
        most: int | None = model._meta.get_field(model.USERNAME_FIELD).max_length
        return name if most is None or len(name) <= most else hashlib.sha256(name.encode()).hexdigest()

    def configure_user(self, request: Any, user: Any, claims: Claims, *, created: bool) -> Any:
        """Return the user, after what an application takes over from the claims; called each time."""
        return user
